"""Schedules against the protocol's formulas, written out here a second time."""

import math
from collections import Counter
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from support.additions import require_oracles

from grok_utils import schedules
from grok_utils.schedules import CONTROLS, GOES_ON, SCHEDULES, controlled, values

T, LO, HI = 7500, 32, 512


def blocks(updates):
    return range(10, updates + 1, 10)


def whole(name, updates=T, lo=LO, hi=HI, length=None):
    """Values as a batch has them."""
    return values(name, updates, lo, hi, length).astype(np.int64)


def cut(f):
    """`int(f)`, with 28-digit rounding noise removed, so that a size cut one too low by rounding shows."""
    return int(round(f, 20))


def shape(name, s, T):
    """A schedule's way from 0 to 1 in exact or 28-digit arithmetic."""
    p = Decimal(s) / T
    return {
        "linear": p,
        "exponential": (2 ** (4 * p) - 1) / 15,
        "logarithmic": (1 + 99 * p).ln() / Decimal(100).ln(),
    }[name]


def steps(s, T):
    """How many of its four steps `stepwise` has taken, in fractions."""
    return min(4, (s - 10) // Fraction(2 * T, 15))


def original_cyclic(s, T, lo, hi):
    """The original code's line, in its order of operations."""
    period = T / 5
    progress = (s % period) / period
    return lo + (hi - lo) * ((math.cos(progress * 2 * math.pi) + 1) / 2)


def other_cyclic(s, T, lo, hi):
    """The same in exact arithmetic, but not in floats."""
    period = T / 5
    return lo + (hi - lo) * (math.cos(2 * math.pi * (s % period) / period) + 1) / 2


FORMULAS = {
    "linear": lambda s, T, lo, hi: lo + (hi - lo) * shape("linear", s, T),
    "exponential": lambda s, T, lo, hi: lo + (hi - lo) * shape("exponential", s, T),
    "logarithmic": lambda s, T, lo, hi: lo + (hi - lo) * shape("logarithmic", s, T),
    "cyclic": original_cyclic,
    "stepwise": lambda s, T, lo, hi: lo * (Decimal(hi) / lo) ** (Decimal(steps(s, T)) / 4),
    "geometric": lambda s, T, lo, hi: lo * (Decimal(hi) / lo) ** (Decimal(s) / T),
}


def test_every_schedule_has_an_oracle():
    require_oracles("the formula", SCHEDULES, FORMULAS, "FORMULAS in tests/science/test_schedules.py")
    assert set(GOES_ON) <= SCHEDULES.keys()


@pytest.mark.parametrize("name", FORMULAS)
def test_batch_size_at_every_block(name):
    assert whole(name).tolist() == [cut(FORMULAS[name](s, T, LO, HI)) for s in blocks(T)]


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(("lo", "hi"), [(1, 1024), (16, 64), (Decimal("1e-4"), Decimal("1e-3"))])
def test_it_goes_from_lo_to_hi_and_from_hi_to_lo(name, lo, hi):
    for first, last in ((lo, hi), (hi, lo)):
        found = values(name, 1500, float(first), float(last))
        formula = FORMULAS[name] if name != "cyclic" else lambda *a: original_cyclic(*map(float, a))
        expected = [float(formula(s, 1500, first, last)) for s in blocks(1500)]
        assert found.dtype == np.float64
        assert found == pytest.approx(expected, rel=1e-12)
        assert found.min() >= float(lo) and found.max() <= float(hi)
        if name != "cyclic":
            assert found[-1] == pytest.approx(float(last), rel=1e-12)
            assert (np.sign(np.diff(found)) * (1 if first < last else -1) >= 0).all()


@pytest.mark.parametrize(
    ("name", "first", "at10", "at50", "last", "mean", "examples"),
    [
        ("linear", 32, 80, 272, 512, 271.8, 2_038_800),
        ("exponential", 32, 42, 128, 512, 172.9, 1_297_120),
        ("logarithmic", 44, 280, 440, 512, 412.4, 3_093_290),
        ("cyclic", 511, 32, 32, 512, 271.5, 2_036_350),
        ("stepwise", 32, 32, 256, 512, 302.9, 2_272_000),
    ],
)
def test_facts_of_the_protocol(name, first, at10, at50, last, mean, examples):
    b = whole(name)
    by_update = dict(zip(blocks(T), b.tolist(), strict=True))
    assert (b[0], by_update[750], by_update[3750], by_update[7500]) == (first, at10, at50, last)
    assert round(b.mean(), 1) == mean
    assert 10 * b.sum() == examples


def test_stepwise_takes_four_equal_ratios():
    assert Counter(whole("stepwise", 1500).tolist()) == {32: 20, 64: 20, 128: 20, 256: 20, 512: 70}
    assert Counter(whole("stepwise", 1500, 512, 32).tolist()) == {512: 20, 256: 20, 128: 20, 64: 20, 32: 70}
    assert sorted(set(values("stepwise", 1500, 1.0, 81.0).round(9))) == [1, 3, 9, 27, 81]


@pytest.mark.parametrize("name", sorted(SCHEDULES.keys() - set(GOES_ON)))
def test_a_batch_size_ends_at_hi_itself(name):
    pairs = [(lo, hi) for lo in range(1, 80, 3) for hi in range(1, 512, 10)]  # 7 · (61 / 7) is 60.99… in floats
    assert [whole(name, 30, lo, hi)[-1] for lo, hi in pairs] == [hi for _, hi in pairs]


def test_geometric_multiplies_by_one_ratio():
    found = values("geometric", 1000, 1e-3, 1e-5)
    assert found[1:] / found[:-1] == pytest.approx(np.full(99, 10**-0.02), rel=1e-12)


@pytest.mark.parametrize(("updates", "differ"), [(1500, 15), (7500, 0)])
def test_cyclic_computes_in_the_original_s_order(updates, differ):
    found = whole("cyclic", updates).tolist()
    assert found == [int(original_cyclic(s, updates, LO, HI)) for s in blocks(updates)]
    other = [int(other_cyclic(s, updates, LO, HI)) for s in blocks(updates)]
    assert sum(a != b for a, b in zip(found, other, strict=True)) == differ


def test_cyclic_has_five_periods_and_goes_on_after_its_length():
    one = whole("cyclic", 1500)
    assert one.tolist() == 5 * one[:30].tolist()
    assert whole("cyclic", 3000, length=1500).tolist() == 2 * one.tolist()


@pytest.mark.parametrize("name", [n for n in SCHEDULES if n not in GOES_ON])
@pytest.mark.parametrize(("lo", "hi"), [(32, 512), (512, 32)])
def test_the_others_hold_their_last_value(name, lo, hi):
    b = values(name, 4000, lo, hi, length=1500)
    assert np.array_equal(b[:150], values(name, 1500, lo, hi))
    assert (b[150:] == hi).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_shorter_run_is_the_start_of_a_longer_schedule(name):
    assert np.array_equal(values(name, 2000, LO, HI, length=T), values(name, T, LO, HI)[:200])


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_much_shorter_than_the_run(name):
    b = values(name, 10_000, LO, HI, length=10)
    # cyclic is at a peak whenever s is a multiple of T; stepwise counts from the start of a block
    assert b.shape == (1000,) and (b == (LO if name == "stepwise" else HI)).all()


@pytest.fixture
def mine(monkeypatch):
    """Registers a schedule for the test alone."""

    def register(f, name="mine"):
        monkeypatch.setattr(schedules, "SCHEDULES", dict(schedules.SCHEDULES))
        f.__name__ = name
        return schedules.schedule(f)

    return register


def test_a_schedule_of_one_s_own_is_registered_by_its_name_and_clipped(mine):
    mine(lambda s, T, lo, hi: hi * 2 * s / T)
    assert values("mine", 50, 10, 20).tolist() == [10, 16, 20, 20, 20]
    assert values("mine", 50, 20, 10).tolist() == [10, 10, 12, 16, 20]


@pytest.mark.parametrize(
    ("f", "said"),
    [
        (lambda s, T, lo, hi: math.nan, "schedule mine is nan at update 10, which is not finite"),
        (lambda s, T, lo, hi: math.inf if s > 20 else lo, "schedule mine is inf at update 30, which is not finite"),
        (lambda s, T, lo, hi: 1 / (s - 20), r"schedule mine has no value at update 20 \(.*zero"),
        (lambda s, T, lo, hi: 2.0 ** (200 * s), r"schedule mine has no value at update 10 "),
        (lambda s, T, lo, hi: "many", "schedule mine has no value at update 10 "),
        (lambda s, T, lo, hi: None, "schedule mine has no value at update 10 "),
        (lambda s, T, lo, hi: -(2**0.5) * (s * -1.0) ** 0.5, "schedule mine has no value at update 10 "),  # complex
        (lambda s, T, lo, hi: math.log(30 - s), "schedule mine has no value at update 30 "),
    ],
)
def test_a_value_that_is_no_finite_number_is_told_with_its_update(mine, f, said):
    mine(f)
    with pytest.raises(ValueError, match=said):
        values("mine", 100, 1, 2)


@pytest.mark.parametrize("name", ["stepwise", "geometric"])
def test_a_ratio_to_zero_is_told(name):
    with pytest.raises(ValueError, match=f"schedule {name} has no value at update 10 .*division by zero"):
        values(name, 100, 0, 1)


# --- controls ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [10, 2000, T, None])
@pytest.mark.parametrize("control", ["reverse", "shuffle"])
@pytest.mark.parametrize("plain", [whole("linear"), whole("cyclic"), values("linear", T, 1e-4, 1e-3)])
def test_a_control_reorders_its_window_and_leaves_the_rest(plain, control, window):
    found = controlled(plain, control, window)
    n = (window or T) // 10
    assert found.dtype == plain.dtype
    assert Counter(found[:n].tolist()) == Counter(plain[:n].tolist())
    assert np.array_equal(found[n:], plain[n:])
    if control == "reverse":
        assert np.array_equal(found[:n], plain[:n][::-1])
    elif n > 1:
        assert not np.array_equal(found[:n], plain[:n])
        assert not np.array_equal(found[:n], plain[:n][::-1])


def test_controls_of_a_few_values():
    five = np.array([1, 2, 3, 4, 7])
    assert controlled(five, "reverse").tolist() == [7, 4, 3, 2, 1]
    mean = controlled(five, "mean")
    assert mean.tolist() == [3] * 5 and mean.dtype == np.int64  # of 3.4
    assert controlled(five / 2, "mean").tolist() == pytest.approx([1.7] * 5)
    assert controlled(five, "mean", 20).tolist() == [2, 2, 3, 4, 7]  # of 1.5, to the even one
    assert controlled(five, "reverse", 30).tolist() == [3, 2, 1, 4, 7]
    assert five.tolist() == [1, 2, 3, 4, 7]


def test_the_mean_of_linear_s_window():
    b = controlled(whole("linear"), "mean", 2000)
    assert set(b[:200].tolist()) == {96}  # the mean of int(32 + 0.064 s) over s = 10, …, 2000 is 95.85
    assert set(controlled(whole("linear"), "mean").tolist()) == {272}


def test_shuffled_orders_are_fixed_and_distinct():
    plain = np.arange(20)
    orders = [controlled(plain, "shuffle", order=order).tolist() for order in range(6)]
    assert orders == [controlled(plain, "shuffle", order=order).tolist() for order in range(6)]
    assert len({*map(tuple, orders)}) == 6
    # The order of the committed order-* records: another would disown them.
    assert orders[1] == ORDER_1
    rates = controlled(plain / 7, "shuffle", order=1)
    assert rates.tolist() == [v / 7 for v in ORDER_1]


ORDER_1 = [15, 2, 4, 19, 10, 7, 6, 0, 9, 8, 18, 16, 11, 5, 17, 14, 13, 1, 3, 12]


@pytest.mark.parametrize("control", [None, *CONTROLS])
def test_an_empty_window_and_no_control_change_nothing(control):
    assert np.array_equal(controlled(whole("linear"), control, 0), whole("linear"))
    assert np.array_equal(controlled(whole("linear"), None, 2000), whole("linear"))
