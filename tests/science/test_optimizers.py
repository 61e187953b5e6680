"""The rules alone, member by member, against torch.optim."""

from functools import partial

import numpy as np
import pytest
import torch
from support.additions import require_oracles
from support.courses import courses_of
from support.oracle import LAYOUT, ORACLES, optimizers_of, pieces, step, trajectories

from grok_utils.engine.stack import Layout
from grok_utils.optimizers import OPTIMIZERS, Hyper, fused_adamw, hyper_table
from grok_utils.tasks import make_task


def by_rule(parameters, gradient, state, hyper, name="adamw"):
    moved, new = OPTIMIZERS[name].rule(parameters, gradient, state, Hyper(*hyper.to(parameters.dtype)), LAYOUT)
    parameters.copy_(moved)
    state.update(new)


def test_every_optimizer_has_an_oracle():
    require_oracles("the step", OPTIMIZERS, ORACLES, "ORACLES in tests/support/oracle.py")


@pytest.mark.parametrize("name", ORACLES)
def test_a_rule_is_pytorchs_optimizer_to_a_billionth_in_float64(name):
    own, expected = trajectories(partial(by_rule, name=name), torch.float64, name=name)
    assert ((own - expected).abs() <= 1e-9 * expected.abs().clamp(min=1e-3)).all()


STEPS = {name: partial(by_rule, name=name) for name in ORACLES} | {"fused": fused_adamw}


@pytest.mark.parametrize("name", STEPS)
def test_in_float32_a_rule_and_the_fused_kernel_are_pytorchs_to_rounding(name):
    own, expected = trajectories(STEPS[name], torch.float32, name="adamw" if name == "fused" else name)
    assert (own - expected).abs().max() < 5e-6  # of numbers up to 5: an ulp, 2e-7 to 5e-7, in a few updates


def test_a_step_of_muon_is_that_of_torch_optim_muon():
    """It orthogonalises in bf16, which has eight bits, by default with Nesterov's momentum."""
    layout = Layout([make_task("x_plus_y", 0, 5)])
    start, gradient = torch.randn(2, 1, sum(layout.sizes), generator=torch.Generator().manual_seed(1))
    leaves = [(p.clone().requires_grad_(), matrix) for p, matrix in pieces(start[0], layout)]
    for (leaf, _), (piece, _) in zip(leaves, pieces(gradient[0], layout), strict=True):
        leaf.grad = piece.clone()
    rate, decay, beta1, beta2 = 0.01, 0.5, 0.9, 0.98
    theirs = optimizers_of(partial(torch.optim.Muon, adjust_lr_fn="match_rms_adamw"), torch.optim.AdamW, leaves)
    step(theirs, rate, decay, beta1, beta2)
    rows = torch.tensor([1, rate, decay, beta1, beta2, 1 - beta1, 1 - beta2])[:, None, None]
    state = {name: torch.zeros_like(start) for name in OPTIMIZERS["muon"].state}
    moved, _ = OPTIMIZERS["muon"].rule(start, gradient, state, Hyper(*rows), layout)
    shrunk = (1 - rate * decay) * start
    updates = pieces((moved - shrunk)[0], layout)
    assert sum(matrix for _, matrix in updates) == 2 * 6
    for (update, matrix), (leaf, _), (p, _) in zip(updates, leaves, pieces(shrunk[0], layout), strict=True):
        expected = leaf.detach() - p
        assert (update - expected).norm() < (2e-2 if matrix else 1e-4) * expected.norm()


def rates(warm_up, blocks):
    table = np.concatenate([hyper_table(courses_of([1] * 751, 1, rate=1e-3), block, warm_up) for block in blocks])
    assert table.shape == (10 * len(blocks), len(Hyper._fields), 1, 1)
    return table[:, Hyper._fields.index("rate"), 0, 0]


def test_the_rate_warms_up():
    assert rates(50, (0, 2, 4, 5, 750))[[0, 1, 15, 29, 30, 31, 40]] == pytest.approx(
        [0, 2e-5, 5e-4, 9.8e-4, 1e-3, 1e-3, 1e-3], rel=1e-12
    )
    assert rates(4, (0,)) == pytest.approx([0, 2.5e-4, 5e-4, 7.5e-4, *[1e-3] * 6], rel=1e-12)
    assert rates(0, (0,)) == pytest.approx([1e-3] * 10)


def test_corrections_are_those_of_the_beta_of_the_moment():
    beta = np.array([0.9, 0.5])[:, None]
    rows = Hyper(*hyper_table(courses_of([1, 1], 1, beta1=beta, beta2=0.98), 1, 50).swapaxes(0, 1)[..., 0, 0])
    assert rows.step.tolist() == [*range(11, 21)]
    assert rows.correction1 == pytest.approx([1 - 0.5**k for k in range(11, 21)], rel=1e-14)
    assert rows.correction2 == pytest.approx([1 - 0.98**k for k in range(11, 21)], rel=1e-14)
