"""Schedules against the protocol's formulas, written out here a second time."""

from collections import Counter
from decimal import Decimal
from math import cos, pi, sqrt

import numpy as np
import pytest

from grok_utils.schedules import CONTROLS, RATE_FACTORS, SCHEDULES, batch_sizes, constant

T, LO, HI = 7500, 32, 512
LOGGED = range(10, T + 1, 10)


def batch(f):
    """`int(f)`, with 28-digit rounding noise removed, so that a size cut one too low by rounding shows."""
    return int(round(f, 20))


def shape(arm, s, T):
    """The growth of an arm from 0 to 1 in exact or 28-digit arithmetic."""
    p = Decimal(s) / T
    return {
        "linear": p,
        "exponential": (2 ** (4 * p) - 1) / 15,
        "logarithmic": (1 + 99 * p).ln() / Decimal(100).ln(),
    }[arm]


FORMULAS = {
    "baseline": lambda s: HI,
    "linear": lambda s: LO + (HI - LO) * shape("linear", s, T),
    "exponential": lambda s: LO + (HI - LO) * shape("exponential", s, T),
    "logarithmic": lambda s: LO + (HI - LO) * shape("logarithmic", s, T),
    "cyclic": lambda s: LO + (HI - LO) * (cos(2 * pi * (s % 1500) / 1500) + 1) / 2,
    "stepwise": lambda s: 32 * 2 ** min(4, (s - 10) // 1000),
}
ARMS = list(FORMULAS)


def sizes(arm, updates=T, **kwargs):
    return batch_sizes(SCHEDULES[arm], updates, **kwargs)


@pytest.mark.parametrize("arm", ARMS)
def test_formula_at_every_block(arm):
    assert sizes(arm).tolist() == [batch(min(512, FORMULAS[arm](s))) for s in LOGGED]


@pytest.mark.parametrize(
    "arm, first, at10, at50, last, mean, examples",
    [
        ("baseline", 512, 512, 512, 512, 512, 3_840_000),
        ("linear", 32, 80, 272, 512, 271.8, 2_038_800),
        ("exponential", 32, 42, 128, 512, 172.9, 1_297_120),
        ("logarithmic", 44, 280, 440, 512, 412.4, 3_093_290),
        ("cyclic", 511, 32, 32, 512, 271.5, 2_036_350),
        ("stepwise", 32, 32, 256, 512, 302.9, 2_272_000),
    ],
)
def test_facts_of_the_protocol(arm, first, at10, at50, last, mean, examples):
    b = sizes(arm)
    by_update = dict(zip(LOGGED, b.tolist(), strict=True))
    assert (b[0], by_update[750], by_update[3750], by_update[7500]) == (first, at10, at50, last)
    assert round(b.mean(), 1) == mean
    assert 10 * b.sum() == examples


@pytest.mark.parametrize("arm", ARMS)
def test_shape_and_bounds(arm):
    b = sizes(arm, 1500, lo=8, hi=100)
    assert b.dtype == np.int64 and b.shape == (150,)
    assert b.min() >= 8 and b.max() == 100


@pytest.mark.parametrize("arm", ["linear", "exponential", "logarithmic"])
@pytest.mark.parametrize("updates, lo, hi", [(1500, 32, 512), (400, 16, 64), (3000, 1, 1024)])
def test_lo_hi_and_updates_are_parameters(arm, updates, lo, hi):
    expected = [batch(lo + (hi - lo) * shape(arm, s, updates)) for s in range(10, updates + 1, 10)]
    assert sizes(arm, updates, lo=lo, hi=hi).tolist() == expected


def test_constant_of_any_size():
    assert batch_sizes(constant(272), 100).tolist() == [272] * 10


def test_cyclic_has_five_periods_and_stepwise_five_levels_at_any_length():
    assert sizes("cyclic", 1500).tolist() == 5 * sizes("cyclic", 1500)[:30].tolist()
    assert Counter(sizes("stepwise", 1500).tolist()) == {32: 20, 64: 20, 128: 20, 256: 20, 512: 70}


@pytest.mark.parametrize("arm", ["linear", "exponential", "logarithmic", "stepwise"])
def test_growing_arm_holds_beyond_its_length(arm):
    b = sizes(arm, 4000, length=1500)
    assert np.array_equal(b[:150], sizes(arm, 1500))
    assert (b[150:] == 512).all()


def test_cyclic_goes_on_cycling_beyond_its_length():
    assert sizes("cyclic", 3000, length=1500).tolist() == 2 * sizes("cyclic", 1500).tolist()


@pytest.mark.parametrize("arm", ARMS)
def test_a_shorter_run_is_the_start_of_a_longer_schedule(arm):
    assert np.array_equal(sizes(arm, 2000, length=T), sizes(arm)[:200])


@pytest.mark.parametrize("window", [10, 2000, T, None])
@pytest.mark.parametrize("control", ["reverse", "shuffle"])
@pytest.mark.parametrize("arm", ["linear", "cyclic"])
def test_control_reorders_its_window_and_leaves_the_rest(arm, control, window):
    plain, controlled = sizes(arm), sizes(arm, control=CONTROLS[control], window=window)
    blocks = (window or T) // 10
    assert Counter(controlled[:blocks].tolist()) == Counter(plain[:blocks].tolist())
    assert np.array_equal(controlled[blocks:], plain[blocks:])
    if control == "reverse":
        assert np.array_equal(controlled[:blocks], plain[:blocks][::-1])
    elif blocks > 1:
        assert not np.array_equal(controlled[:blocks], plain[:blocks])
        assert not np.array_equal(controlled[:blocks], plain[:blocks][::-1])


def test_shuffle_is_fixed():
    first, again = (sizes("linear", control=CONTROLS["shuffle"], window=2000) for _ in range(2))
    assert np.array_equal(first, again)


def test_mean_is_constant_at_the_rounded_mean_of_its_window():
    b = sizes("linear", control=CONTROLS["mean"], window=2000)
    assert set(b[:200].tolist()) == {96}  # the mean of int(32 + 0.064 s) over s = 10, …, 2000 is 95.85
    assert np.array_equal(b[200:], sizes("linear")[200:])
    assert set(sizes("linear", control=CONTROLS["mean"]).tolist()) == {272}


def test_empty_window_changes_nothing():
    for control in CONTROLS.values():
        assert np.array_equal(sizes("linear", control=control, window=0), sizes("linear"))


@pytest.mark.parametrize("arm", ARMS)
def test_a_schedule_much_shorter_than_the_run(arm):
    b = sizes(arm, length=10)
    # cyclic is at a peak whenever s is a multiple of T; stepwise counts from the start of a block
    assert b.shape == (750,) and (b[arm == "stepwise" :] == 512).all()


@pytest.mark.parametrize("f", [lambda s, T, lo, hi: 0.99, lambda s, T, lo, hi: -5, lambda s, T, lo, hi: float("nan")])
def test_batch_size_below_one_raises(f):
    with pytest.raises(ValueError, match="batch size"):
        batch_sizes(f, 100)


@pytest.mark.parametrize("arm", ["linear", "exponential", "stepwise"])
def test_lo_of_zero_raises(arm):
    with pytest.raises(ValueError, match="batch size 0"):
        sizes(arm, lo=0)


def test_rate_factors_follow_the_batch_size():
    constant, scaled, mirrored = (RATE_FACTORS[name] for name in ("constant", "sqrt_batch", "mirror_linear"))
    own, linear_sizes = sizes("exponential"), sizes("linear")
    assert (constant(own, linear_sizes, 32, 512) == 1).all()
    expected = [sqrt(int(b) / 512) for b in own]
    assert scaled(own, linear_sizes, 32, 512) == pytest.approx(expected, rel=1e-15)
    assert (scaled(sizes("baseline"), linear_sizes, 32, 512) == 1).all()
    # The mirror decays from 1 to a quarter, as sqrt(32 / 512), whatever the arm's own sizes.
    m = mirrored(sizes("baseline"), linear_sizes, 32, 512)
    assert (m[0], m[-1]) == (1, 0.25) and (np.diff(m) <= 0).all()
    assert m[374] == pytest.approx(sqrt(32 / 272))
