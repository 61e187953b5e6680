"""Batch size as a pure function of the update: the study's arms, constants, and controls over a window of updates.

A schedule of your own is one function decorated with `@schedule`; its name is then an arm that any study file can name.
"""

import math
from collections.abc import Callable

import numpy as np

BLOCK = 10  # updates between two logs; the batch size is constant within a block

Schedule = Callable[..., float]
SCHEDULES: dict[str, Schedule] = {}


def schedule(f: Schedule) -> Schedule:
    """Register `f(s, T, lo, hi)` under its own name.

    `s` is the update that ends the current block (10, 20, …), `T` the length of the schedule in updates, `lo` and `hi`
    its smallest and largest batch size. The batch size used is `int(min(hi, f))`.
    """
    SCHEDULES[f.__name__] = f
    return f


@schedule
def baseline(s: int, T: int, lo: int, hi: int) -> float:
    return hi


@schedule
def linear(s: int, T: int, lo: int, hi: int) -> float:
    return lo + (hi - lo) * (s / T)


@schedule
def exponential(s: int, T: int, lo: int, hi: int) -> float:
    return lo + (hi - lo) * (2 ** (4 * (s / T)) - 1) / 15


@schedule
def logarithmic(s: int, T: int, lo: int, hi: int) -> float:
    return lo + (hi - lo) * math.log(1 + 99 * (s / T)) / math.log(100)


@schedule
def cyclic(s: int, T: int, lo: int, hi: int) -> float:
    period = T / 5
    return lo + (hi - lo) * (math.cos(2 * math.pi * (s % period) / period) + 1) / 2


@schedule
def stepwise(s: int, T: int, lo: int, hi: int) -> float:
    """Double every 2T/15 updates, which is every 1,000 at T = 7,500."""
    return lo * 2 ** ((s - BLOCK) // (T * 2 / 15))


def constant(batch_size: int) -> Schedule:
    """The schedule that is `batch_size` throughout."""

    def fixed(s: int, T: int, lo: int, hi: int) -> float:
        return batch_size

    return fixed


def reverse(sizes: np.ndarray) -> np.ndarray:
    """The same batch sizes, last first."""
    return sizes[::-1]


def shuffle(sizes: np.ndarray, order: int = 0) -> np.ndarray:
    """The same batch sizes in a fixed shuffled order, the same wherever `order` is the same."""
    return np.random.Generator(np.random.Philox(key=[order, len(sizes)])).permutation(sizes)


def mean(sizes: np.ndarray) -> np.ndarray:
    """The constant at the mean batch size, rounded."""
    return np.full_like(sizes, round(float(sizes.mean())))


CONTROLS: dict[str, Callable[..., np.ndarray]] = {f.__name__: f for f in (reverse, shuffle, mean)}


# What the learning rate is multiplied with, block by block, given the arm's batch sizes and those of `linear`. The
# second asks whether the rate's usual scaling with the batch undoes a schedule; the third decays the rate as `linear`
# grows the batch (Smith et al. 2018, arXiv 1711.00489, with the square root of Adam-like optimisers).
RATE_FACTORS: dict[str, Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]] = {
    "constant": lambda sizes, linear_sizes, lo, hi: np.ones(len(sizes)),
    "sqrt_batch": lambda sizes, linear_sizes, lo, hi: np.sqrt(sizes / hi),
    "mirror_linear": lambda sizes, linear_sizes, lo, hi: np.sqrt(lo / linear_sizes),
}


def _batch_size(f: Schedule, s: int, T: int, lo: int, hi: int) -> int:
    try:
        size = f(s, T, lo, hi)
    except OverflowError:  # a growing schedule far beyond its length
        return hi
    try:
        return int(min(size, hi))  # NaN comes first, so that int() refuses it
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"schedule {f.__name__}: its batch size at update {s} is no number ({error})") from None


def batch_sizes(
    f: Schedule,
    updates: int,
    lo: int = 32,
    hi: int = 512,
    length: int | None = None,
    control: Callable[[np.ndarray], np.ndarray] | None = None,
    window: int | None = None,
) -> np.ndarray:
    """Batch size of each block of 10 updates: int64 [updates / 10].

    `length` is the schedule's T where it differs from the number of updates: beyond T a growing schedule stays at `hi`
    and `cyclic` goes on cycling. `control` replaces the batch sizes of the updates in [0, `window`] (default: all).
    Raises ValueError where a batch size would be below 1 or is no number.
    """
    T = updates if length is None else length
    sizes = np.array([_batch_size(f, s, T, lo, hi) for s in range(BLOCK, updates + 1, BLOCK)], dtype=np.int64)
    if sizes.min() < 1:
        raise ValueError(f"schedule {f.__name__}: batch size {sizes.min()} is not a whole number from 1 on")
    if control is not None:
        blocks = (updates if window is None else window) // BLOCK
        sizes = sizes if blocks == 0 else np.concatenate([control(sizes[:blocks]), sizes[blocks:]])
    return sizes
