"""Updates against examples: how both follow the batch size, and whether a schedule beats the constants at either
(ANALYSIS_PLAN.md, part two, "Steps and examples" and "Decisions").

`members` is a row a member, as `crossings.crossings` gives, each arm of an operation at one cell. Costs are restricted:
a member that never reaches counts as the horizon, and as its examples by then.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from grok_utils.analysis.crossings import MEMBER, by_operation, in_order
from grok_utils.analysis.equivalence import ratio
from grok_utils.analysis.inference import ALPHA, holm, pairs, sign_flip_p
from grok_utils.analysis.measured import value
from grok_utils.measures import RATIOS
from grok_utils.tuned import fitting
from grok_utils.tuned.fitting import RESAMPLES, Objective
from grok_utils.tuned.law import WARM_UP_COST

COSTS = {"updates": "restricted", "examples_seen": "restricted_examples"}  # of those that reach, and of all
NO_WORSE = 1.10  # the upper ratio, in one cost, of a schedule that dominates by the other
FRONTIER_RESAMPLES = 9_999  # p of a family of some fifty tests needs them
FORMS = {"hyperbola": ["S_min", "B_c"], "power": ["S_min", "B_c", "gamma"]}


def by_seed(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """`column` of one operation's members: a row a seed, a column an arm. ValueError where a seed comes twice."""
    wide = rows.pivot(index="seed", columns="schedule", values=column)  # noqa: PD010 (pivot_table averages the two)
    return wide[in_order(rows["schedule"])]


def _means(wide: pd.DataFrame, resamples: int) -> np.ndarray:
    """Means over seeds [1 + resamples, arms]: the observed ones, then those of each resample of seeds."""
    present = wide.notna().to_numpy(float)
    weights = fitting.seed_weights(present, resamples)
    return (weights @ wide.fillna(0).to_numpy(float)) / (weights @ present)


def steps_and_examples(members: pd.DataFrame, sizes: Mapping[str, int], resamples: int = RESAMPLES) -> pd.DataFrame:
    """S = S_min (1 + B_c / B), and with (B_c / B)^γ, by least squares of the log of S on the batch size B.

    `sizes` are those of the constants' names; one of which half of the seeds or more fail on an operation is left out
    there, as its mean says no more than where its runs end. S is the geometric mean over seeds of restricted time − 25.
    Columns: operation, form, sizes, seeds (of the arm with fewest), aic, coefficient, estimate, low, high (95 %),
    low_90, high_90: bootstrap intervals over seeds. The AIC takes the means as equally uncertain, and they are few: the
    interval of γ, which holds 1 or does not, says more.
    """
    rows = []
    constants = members[members["schedule"].isin(sizes)]
    reached = constants.groupby(["operation", "schedule"])["reached"].transform("mean")
    for operation, of in by_operation(constants[reached > 0.5]):
        wide = np.log(by_seed(of, "restricted") - WARM_UP_COST)
        y, seeds = _means(wide, resamples), int(wide.count().min())
        rows += fitted({"operation": operation}, np.log([sizes[arm] for arm in wide]), y, seeds)
    return pd.DataFrame(rows)


def fitted(key: dict[str, str], batch: np.ndarray, y: np.ndarray, seeds: int) -> list[dict[str, Any]]:
    """The rows of `steps_and_examples` with this key, of the logs of sizes and of S [1 + resamples, sizes]."""
    rows = []
    for form, names in FORMS.items():
        starts = [[y[0].min(), at, 0.0][: len(names)] for at in (batch.min(), np.median(batch), batch.max())]
        theta, errors = fitting.best_fits(_curve(batch, y), np.array(starts), len(y))
        aic = len(batch) * np.log(2 * errors[0] / len(batch)) + 2 * (len(names) + 1)
        of = key | {"form": form, "sizes": len(batch), "seeds": seeds, "aic": aic}
        rows += fitting.with_intervals(of, names, np.exp(theta), seeds)
    return rows


def _curve(batch: np.ndarray, y: np.ndarray) -> Objective:
    """Half the squared error of log S [R, sizes]; parameters log S_min, log B_c and, where it is free, log γ."""

    def objective(theta: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        gamma = np.exp(theta[:, 2:]) if theta.shape[1] == 3 else np.ones((len(theta), 1))
        u = gamma * (theta[:, 1:2] - batch)  # the log of what is added to 1
        slope = np.stack([np.ones_like(u), gamma * expit(u), u * expit(u)], axis=2)[..., : theta.shape[1]]
        error = theta[:, :1] + np.logaddexp(0, u) - y[rows]
        by_parameter = np.einsum("rn,rni->ri", error, slope)
        return (error**2).sum(1) / 2, by_parameter, np.einsum("rni,rnj->rij", slope, slope)

    return objective


def above_frontier(x: np.ndarray, y: np.ndarray, at: np.ndarray, value: np.ndarray) -> np.ndarray:
    """`value` [R] less the height, at `at` [R], of the lower hull of the undominated points (x, y) [R, k]; NaN outside
    the hull's range.

    That hull is the least of all chords between points, from the leftmost point to the lowest one: no chord from a
    dominated point lies below it there.
    """
    order = np.argsort(x, axis=1)
    x, y, at = np.take_along_axis(x, order, 1), np.take_along_axis(y, order, 1), at[:, None]
    i, j = np.triu_indices(x.shape[1])  # a point is a chord, too: there may be one alone
    with np.errstate(invalid="ignore", divide="ignore"):
        along = np.where(x[:, j] > x[:, i], (at - x[:, i]) / (x[:, j] - x[:, i]), 0)
    chords = y[:, i] + along * (y[:, j] - y[:, i])
    least = np.where((x[:, i] <= at) & (at <= x[:, j]), chords, np.inf).min(axis=1)
    last = np.take_along_axis(x, y.argmin(axis=1)[:, None], 1)
    return np.where((x[:, :1] <= at) & (at <= last), value[:, None] - least[:, None], np.nan)[:, 0]


def frontier(members: pd.DataFrame, constants: Collection[str], resamples: int = FRONTIER_RESAMPLES) -> pd.DataFrame:
    """How far every other arm lies from the frontier of the constants, in log updates at its own examples.

    Columns: operation, schedule, seeds (of the arm with fewest), distance (below 0: fewer updates; NaN outside the
    frontier's range), low, high (95 %), p, and those of `judged`. Frontier and arm are drawn anew in
    each resample of seeds; p is twice the share of resamples on the rarer side of 0. A resample that puts the arm
    outside the range counts against either side. The hull is straight between constants and S_min (1 + B_c / B) is
    not: at sizes a factor of 2 apart a constant between two of them lies below it, by up to 6 %.
    """
    rows = []
    for operation, arms in by_operation(members):
        updates, examples = (by_seed(arms, column) for column in COSTS.values())
        y, x = np.log(_means(updates, resamples)), np.log(_means(examples, resamples))
        known = updates.columns.isin(constants)
        for i in np.flatnonzero(~known):
            distance, *draws = above_frontier(x[:, known], y[:, known], x[:, i], y[:, i])
            drawn, seeds = np.array(draws), int(updates.count().min())
            row = {"operation": operation, "schedule": updates.columns[i], "seeds": seeds, "distance": distance}
            low, high, p = np.nan, np.nan, np.nan
            if np.isfinite(distance):
                low, high = fitting.percentile_interval(drawn, seeds)
                rarer = min(resamples - (drawn < 0).sum(), resamples - (drawn > 0).sum())
                p = min(2 * (rarer + 1) / (resamples + 1), 1.0)
            rows.append(row | {"low": low, "high": high, "p": p})
    table = pd.DataFrame(rows)
    return judged(table.assign(less=table["high"] < 0))


def judged(table: pd.DataFrame) -> pd.DataFrame:
    """The tests of one family, a row each with p and whether the estimate is `less`: with adjusted_p (Holm, over the
    rows) and passes, less at an adjusted p below ALPHA."""
    adjusted = holm(table["p"])
    return table.assign(adjusted_p=adjusted, passes=table["less"] & (adjusted < ALPHA))


def domination(members: pd.DataFrame, comparators: Mapping[str, str], schedules: Collection[str]) -> pd.DataFrame:
    """Does a schedule cost no more than its operation's comparator in one cost, and less in the other?

    Two rows a schedule and operation: operation, schedule, n, no_worse (a cost), ratio and ratio_high (the 90 %
    interval's upper end) in it, better (the other cost), difference in it and p (paired sign-flip), and those of
    `judged`.
    """
    rows = []
    for operation, arms in by_operation(members):
        for arm in in_order(set(arms["schedule"]) & set(schedules) - {comparators[operation]}):
            for no_worse, better in (("updates", "examples_seen"), ("examples_seen", "updates")):
                cost = ratio(arms, arm, comparators[operation], operation, no_worse)
                less = np.subtract(*pairs(arms, arm, comparators[operation], operation, COSTS[better]))
                row = {"operation": operation, "schedule": arm, "n": len(less), "no_worse": no_worse}
                row |= {"ratio": cost.estimate, "ratio_high": cost.high, "better": better}
                rows.append(row | {"difference": less.mean(), "p": sign_flip_p(less)})
    table = pd.DataFrame(rows)
    return judged(table.assign(less=(table["difference"] < 0) & (table["ratio_high"] < NO_WORSE)))


def noise_scale(frame: pd.DataFrame, members: pd.DataFrame) -> pd.DataFrame:
    """The gradient noise scale of each member that reaches, in examples: MEMBER, updates, opposed and noise_scale.

    The mean of gradient_trace over that of gradient_square (arXiv 1812.06162), at the logs from 0.1 T to 0.9 T; NaN
    where the squared gradient is not above 0, and so lost in noise. opposed is the share of logs at which it is not.
    """
    logs = frame.merge(members.loc[members["reached"], [*MEMBER, "updates"]], on=MEMBER)
    logs = logs[logs["update"].between(0.1 * logs["updates"], 0.9 * logs["updates"])]
    logs = logs.assign(opposed=logs["gradient_square"] <= 0)
    means = logs.groupby(MEMBER)[["updates", "opposed", *RATIOS["noise_scale"]]].mean().reset_index()
    return means[[*MEMBER, "updates", "opposed"]].assign(noise_scale=value(means, "noise_scale"))
