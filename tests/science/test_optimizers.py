"""The rules alone, member by member, against torch.optim."""

import numpy as np
import pytest
import torch
from support.courses import courses_of, varied

from grok_utils.engine.trainer import fused_adamw
from grok_utils.optimizers import OPTIMIZERS, Hyper, hyper_table
from grok_utils.schedules import BLOCK

MEMBERS, BLOCKS, SIZE = 3, 5, 137


def by_rule(parameters, gradient, state, hyper):
    moved, new = OPTIMIZERS["adamw"].rule(parameters, gradient, state, Hyper(*hyper.to(parameters.dtype)), None)
    parameters.copy_(moved)
    state.update(new)


def trajectories(step, dtype):
    """Parameters [50, M, P] after each update by `step`, and those of one torch.optim.AdamW a member in float64."""
    generator = torch.Generator().manual_seed(0)
    courses = varied([1] * BLOCKS, MEMBERS)
    start = torch.randn(MEMBERS, SIZE, generator=generator, dtype=torch.float64)
    gradients = torch.randn(BLOCKS * BLOCK, MEMBERS, SIZE, generator=generator, dtype=torch.float64)
    parameters = start.to(dtype)
    state = {name: torch.zeros_like(parameters) for name in OPTIMIZERS["adamw"].state}
    leaves = [row.clone().requires_grad_() for row in start]
    adams = [torch.optim.AdamW([leaf], eps=1e-8) for leaf in leaves]
    own, expected = [], []
    for k, gradient in enumerate(gradients):
        block = k // BLOCK
        hyper = torch.from_numpy(hyper_table(courses, block)[k % BLOCK])
        step(parameters, gradient.to(dtype), state, hyper)
        own.append(parameters.double().clone())
        for i, (leaf, adam) in enumerate(zip(leaves, adams, strict=True)):
            betas = courses.beta1[block, i], courses.beta2[block, i]
            rate, decay = courses.learning_rate[block, i] * min(k / 50, 1), courses.weight_decay[block, i]
            adam.param_groups[0].update(lr=rate, weight_decay=decay, betas=betas)
            leaf.grad = gradient[i].clone()
            adam.step()
        expected.append(torch.stack([leaf.detach().clone() for leaf in leaves]))
    return torch.stack(own), torch.stack(expected)


def test_the_rule_is_torch_adamw_to_a_billionth_in_float64():
    own, expected = trajectories(by_rule, torch.float64)
    assert ((own - expected).abs() <= 1e-9 * expected.abs()).all()


@pytest.mark.parametrize("step", [by_rule, fused_adamw])
def test_in_float32_the_rule_and_the_fused_kernel_are_torch_adamw_to_rounding(step):
    own, expected = trajectories(step, torch.float32)
    assert (own - expected).abs().max() < 2e-6  # of numbers about 1, an ulp an update at most


def test_the_rate_warms_up_over_fifty_updates():
    table = np.concatenate([hyper_table(courses_of([1] * 751, 1, rate=1e-3), block) for block in (0, 2, 4, 5, 750)])
    assert table.shape == (50, len(Hyper._fields), 1, 1)
    assert table[[0, 1, 15, 29, 30, 31, 40], Hyper._fields.index("rate"), 0, 0] == pytest.approx(
        [0, 2e-5, 5e-4, 9.8e-4, 1e-3, 1e-3, 1e-3], rel=1e-12
    )


def test_corrections_are_those_of_the_beta_of_the_moment():
    beta = np.array([0.9, 0.5])[:, None]
    rows = Hyper(*hyper_table(courses_of([1, 1], 1, beta1=beta, beta2=0.98), 1).swapaxes(0, 1)[..., 0, 0])
    assert rows.step.tolist() == [*range(11, 21)]
    assert rows.correction1 == pytest.approx([1 - 0.5**k for k in range(11, 21)], rel=1e-14)
    assert rows.correction2 == pytest.approx([1 - 0.98**k for k in range(11, 21)], rel=1e-14)
