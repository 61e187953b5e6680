"""Many small fits at once, one for each resample of the seeds, and the intervals that come of them.

A resample of seeds is a row of weights, how often each seed comes. So a bootstrap of a fit is one fit of as many rows,
which start at the estimate and take a few steps of Newton's together, where a call of an optimiser for each would take
minutes.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from scipy import stats

from grok_utils.analysis.intervals import CONFIDENCE, SEED

RESAMPLES = 2_000
LEVELS = {"": CONFIDENCE, "_90": 0.90}  # of the intervals of a fit, and what their columns end in

Objective = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def minimise(objective: Objective, start: np.ndarray, tolerance: float = 1e-10, steps: int = 200) -> np.ndarray:
    """Where each row's objective is least, from `start` [R, p], by Levenberg–Marquardt steps of all rows together.

    `objective(theta, rows)` gives value [r], gradient [r, p] and curvature [r, p, p] of these rows; the curvature may
    be approximate. A row is done when an accepted step gains less than `tolerance`, or none gains anything.
    """
    theta, rows = np.array(start, dtype=np.float64), np.arange(len(start))
    damping = np.full(len(theta), 1e-3)
    value, gradient, curvature = objective(theta, rows)
    for _ in range(steps):
        diagonal = np.abs(np.einsum("rii->ri", curvature))
        diagonal = np.maximum(diagonal, 1e-8 * diagonal.max(axis=1, keepdims=True) + 1e-12)
        damped = curvature + np.einsum("r,ri,ij->rij", damping[rows], diagonal, np.eye(theta.shape[1]))
        step = np.clip(-np.linalg.solve(damped, gradient[..., None])[..., 0], -3, 3)
        trial = objective(theta[rows] + step, rows)
        better = trial[0] <= value  # never where it is NaN
        gain = np.where(better, value - trial[0], np.inf)
        theta[rows[better]] += step[better]
        value, gradient, curvature = (
            np.where(better.reshape(-1, *[1] * (old.ndim - 1)), new, old)
            for new, old in zip(trial, (value, gradient, curvature), strict=True)
        )
        damping[rows] = np.where(better, np.maximum(damping[rows] / 10, 1e-9), damping[rows] * 10)
        left = (gain > tolerance) & (damping[rows] < 1e9)
        rows, value, gradient, curvature = rows[left], value[left], gradient[left], curvature[left]
        if not len(rows):
            break
    return theta


def best_fits(objective: Objective, starts: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and value of the least that `minimise` finds from any start [starts, p], for each of `count` rows."""
    rows = np.arange(count)
    found = np.array([minimise(objective, np.tile(start, (count, 1))) for start in starts])
    values = np.array([objective(theta, rows)[0] for theta in found])
    best = values.argmin(axis=0)
    return found[best, rows], values[best, rows]


def seed_weights(present: Any, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each seed comes: once, and in each bootstrap resample: [1 + resamples, seeds], always the same ones.

    `present` [seeds, arms] says which arms have which seed. Those of the same arms are drawn among themselves: so each
    arm keeps its number of seeds, and common seeds stay paired.
    """
    _, pattern = np.unique(np.asarray(present, dtype=bool), axis=0, return_inverse=True)
    return _seed_weights(tuple(pattern.tolist()), resamples)


@lru_cache(maxsize=16)  # the arms of a stage share their seeds, and drawing takes longer than what is then done
def _seed_weights(alike_by: tuple[int, ...], resamples: int) -> np.ndarray:
    rng, pattern = np.random.default_rng(SEED), np.array(alike_by)
    weights = np.ones((1 + resamples, len(pattern)))
    for number in range(pattern.max() + 1):
        alike = pattern == number
        weights[1:, alike] = rng.multinomial(alike.sum(), np.full(alike.sum(), 1 / alike.sum()), resamples)
    weights.flags.writeable = False  # it is given out again
    return weights


def percentile_interval(draws: np.ndarray, seeds: int, level: float = CONFIDENCE) -> tuple[float, float]:
    """Expanded percentiles of bootstrap draws: Hesterberg, Am. Stat. 69 (2015) 371–386, section 5.3.

    Plain percentiles of few clusters are too narrow, by t against z and by √((n − 1) / n); their tails are moved by as
    much. A draw that is NaN, one without a value, counts as beyond either end.
    """
    if seeds < 2:
        return np.nan, np.nan
    tail = stats.norm.cdf(-np.sqrt(seeds / (seeds - 1)) * stats.t.ppf((1 + level) / 2, seeds - 1))
    low = np.quantile(np.where(np.isnan(draws), -np.inf, draws), tail, method="lower")
    high = np.quantile(np.where(np.isnan(draws), np.inf, draws), 1 - tail, method="higher")
    return float(low), float(high)


def with_intervals(key: dict[str, Any], names: list[str], theta: np.ndarray, seeds: int) -> list[dict[str, Any]]:
    """A row with this key for each of the coefficients `names` of a fit and its draws, `theta` [1 + resamples, names]:
    coefficient, estimate, low and high (95 %), low_90 and high_90."""
    rows = [key | {"coefficient": name, "estimate": found} for name, found in zip(names, theta[0], strict=True)]
    for row, draws in zip(rows, theta[1:].T, strict=True):
        for end, level in LEVELS.items():
            row["low" + end], row["high" + end] = percentile_interval(draws, seeds, level)
    return rows
