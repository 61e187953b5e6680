"""The rules alone, member by member, against torch.optim."""

import numpy as np
import pytest
import torch
from support.courses import courses_of
from support.oracle import trajectories

from grok_utils.engine.trainer import fused_adamw
from grok_utils.optimizers import OPTIMIZERS, Hyper, hyper_table


def by_rule(parameters, gradient, state, hyper):
    moved, new = OPTIMIZERS["adamw"].rule(parameters, gradient, state, Hyper(*hyper.to(parameters.dtype)), None)
    parameters.copy_(moved)
    state.update(new)


def test_the_rule_is_torch_adamw_to_a_billionth_in_float64():
    own, expected = trajectories(by_rule, torch.float64)
    assert ((own - expected).abs() <= 1e-9 * expected.abs()).all()


@pytest.mark.parametrize("step", [by_rule, fused_adamw])
def test_in_float32_the_rule_and_the_fused_kernel_are_torch_adamw_to_rounding(step):
    own, expected = trajectories(step, torch.float32)
    assert (own - expected).abs().max() < 5e-6  # of numbers up to 4: an ulp, 2e-7 to 5e-7, in a few updates


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
