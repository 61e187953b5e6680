"""A value as a pure function of the update, whatever hyper-parameter it is of; and controls over a window of updates.

A schedule of your own is one function decorated with `@schedule`; its name is then an arm that any study file can name,
and a course that any hyper-parameter can take.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64, Shaped

BLOCK = 10  # updates between two logs; hyper-parameters are constant within a block
GOES_ON = ("cyclic",)  # after its length T; the others hold their last value

Schedule = Callable[[int, int, float, float], float]
SCHEDULES: dict[str, Schedule] = {}


def schedule(f: Schedule) -> Schedule:
    r"""Register `f(s, T, lo, hi)` under its own name.

    `s` is the update that ends the current block (10, 20, …), `T` the length of the schedule in updates; it goes from
    `lo` to `hi`, of which either may be the larger. The docstring is its formula in TeX, with $p = s/T$.
    """
    SCHEDULES[f.__name__] = f
    return f


@schedule
def linear(s: int, T: int, lo: float, hi: float) -> float:
    r"""$b_0 + (b_1 - b_0)\,p$"""
    return lo + (hi - lo) * (s / T)


@schedule
def exponential(s: int, T: int, lo: float, hi: float) -> float:
    r"""$b_0 + (b_1 - b_0)\,(2^{4p} - 1) / 15$"""
    return lo + (hi - lo) * (2 ** (4 * (s / T)) - 1) / 15


@schedule
def logarithmic(s: int, T: int, lo: float, hi: float) -> float:
    r"""$b_0 + (b_1 - b_0)\,\ln(1 + 99p) / \ln 100$"""
    return lo + (hi - lo) * (math.log(1 + 99 * (s / T)) / math.log(100))


@schedule
def cyclic(s: int, T: int, lo: float, hi: float) -> float:
    r"""$b_0 + (b_1 - b_0)\,(\cos(2\pi\,(s \bmod P)/P) + 1) / 2$ with $P = T/5$"""
    progress = (s % (T / 5)) / (T / 5)  # in the original's order: another lands one lower or higher when truncated
    return lo + (hi - lo) * ((math.cos(progress * 2 * math.pi) + 1) / 2)


@schedule
def stepwise(s: int, T: int, lo: float, hi: float) -> float:
    r"""$b_0\,(b_1/b_0)^{k/4}$ with $k = \min(4, \lfloor (s - 10) / (2T/15) \rfloor)$"""
    return _by_ratio(lo, hi, min(4, (s - BLOCK) // (T * 2 / 15)) / 4)


@schedule
def geometric(s: int, T: int, lo: float, hi: float) -> float:
    r"""$b_0\,(b_1/b_0)^p$"""
    return _by_ratio(lo, hi, s / T)


def _by_ratio(lo: float, hi: float, p: float) -> float:
    return hi if p == 1 else lo * (hi / lo) ** p  # 7 · (61 / 7) is 60.99…, which a batch size would truncate


def values(name: str, updates: int, lo: float, hi: float, length: int | None = None) -> Float64[np.ndarray, " blocks"]:
    """The value of each block of 10 updates, clipped between `lo` and `hi`.

    `length` is the schedule's T (default: `updates`), after which the last value holds. Raises ValueError where a value
    is not finite or no number, naming the update.
    """
    f, T = SCHEDULES[name], updates if length is None else length
    found = []
    for s in range(BLOCK, updates + 1, BLOCK):
        try:
            value = float(f(s if name in GOES_ON else min(s, T), T, lo, hi))
        except (ValueError, TypeError, ArithmeticError) as error:
            raise ValueError(f"schedule {name} has no value at update {s} ({error})") from None
        if not math.isfinite(value):
            raise ValueError(f"schedule {name} is {value} at update {s}, which is not finite")
        found.append(min(max(value, min(lo, hi)), max(lo, hi)))
    return np.array(found)


def reverse(values: Shaped[np.ndarray, " blocks"], order: int = 0) -> Shaped[np.ndarray, " blocks"]:
    """The same values, last first."""
    return values[::-1]


def shuffle(values: Shaped[np.ndarray, " blocks"], order: int = 0) -> Shaped[np.ndarray, " blocks"]:
    """The same values in a fixed shuffled order, the same wherever `order` is the same."""
    return np.random.Generator(np.random.Philox(key=[order, len(values)])).permutation(values)


def mean(values: Shaped[np.ndarray, " blocks"], order: int = 0) -> Shaped[np.ndarray, " blocks"]:
    """The constant at their mean, rounded where they are whole numbers."""
    whole = np.issubdtype(values.dtype, np.integer)
    return np.full_like(values, round(float(values.mean())) if whole else values.mean())


CONTROLS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {f.__name__: f for f in (reverse, shuffle, mean)}


def controlled(
    values: Shaped[np.ndarray, " blocks"], control: str | None, window: int | None = None, order: int = 0
) -> Shaped[np.ndarray, " blocks"]:
    """`values` with those of the updates in [0, `window`] (default: all) replaced as `control` says."""
    blocks = len(values) if window is None else window // BLOCK
    if control is None or blocks == 0:
        return values
    return np.concatenate([CONTROLS[control](values[:blocks], order), values[blocks:]])
