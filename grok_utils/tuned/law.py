"""How the time to 99 % follows rate and decay: what each cell of a grid says, the law over the cells that count, and
the edge of stability (ANALYSIS_PLAN.md, part two, "The law").

`members` is a row a member, as `crossings.crossings` gives, of arms whose cells differ in rate and decay. τ, AdamW's
decay timescale, is 1 / (rate × decay) updates.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import log_ndtr

from grok_utils.analysis.crossings import GROUP, cell_values
from grok_utils.analysis.summaries import summarise
from grok_utils.schedules import BLOCK
from grok_utils.tuned.fitting import RESAMPLES, Objective, best_fits, seed_weights, with_intervals

WARM_UP_COST = 25  # updates, that a warm-up over 50 costs

Mean = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # [R, p] -> log time [R, n] and its slopes [R or 1, n, p]


def surface(members: pd.DataFrame) -> pd.DataFrame:
    """A row a cell: those of GROUP, n, reached, horizon, median (NaN where half or more never reach), rate, decay, tau,
    in_tau (median / τ), all_reach, and counts, whether the law is fitted to it.

    A cell counts if all its seeds reach, also at twice the rate and at twice the decay, and its median is below half
    the horizon. One that lacks such a neighbour does not: nothing shows that it is stable.
    """
    found = summarise(members)[[*GROUP, "n", "reached", "horizon", "median"]]
    settings = pd.DataFrame(map(cell_values, found["cell"]))
    table = found.assign(rate=settings["learning_rate"], decay=settings["weight_decay"])
    table["tau"] = 1 / (table["rate"] * table["decay"])
    table["in_tau"], table["all_reach"] = table["median"] / table["tau"], table["reached"] == table["n"]
    octaves = (1000 * np.log2(table[["rate", "decay"]])).round().astype(int)  # so that twice is exactly 1000 more
    places = list(zip(table["operation"], table["schedule"], octaves["rate"], octaves["decay"], strict=True))
    stable = {place for place, reach in zip(places, table["all_reach"], strict=True) if reach}
    doubled = [{(o, arm, r, d), (o, arm, r + 1000, d), (o, arm, r, d + 1000)} <= stable for o, arm, r, d in places]
    table["counts"] = np.array(doubled) & (table["median"] < table["horizon"] / 2)
    return table


def edges(touch: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """The edge of stability from `surface` of either outcome: operation, schedule, of (rate or decay), at (a value of
    the other), tried (the highest), reach and keep (the highest at which all seeds touch, and keep; NaN: at none)."""
    tables = []
    for of, at in (("rate", "decay"), ("decay", "rate")):
        keys = ["operation", "schedule", at]
        found = touch.groupby(keys, sort=False)[[of]].max().set_axis(["tried"], axis=1)
        for name, table in {"reach": touch, "keep": kept}.items():
            found[name] = table[table["all_reach"]].groupby(keys)[of].max()
        tables.append(found.reset_index().rename(columns={at: "at"}).assign(of=of))
    return pd.concat(tables, ignore_index=True)[["operation", "schedule", "of", "at", "tried", "reach", "keep"]]


def times(members: pd.DataFrame, cells: pd.DataFrame) -> np.recarray:
    """The members of these cells, a row each: T's interval (above, until], a block of updates or, of one that never
    reaches, what is beyond its horizon; rate and decay; seed, the seed's number."""
    rows = members.merge(cells[["operation", "schedule", "cell", "rate", "decay"]])
    above = (rows["updates"] - BLOCK).where(rows["reached"], rows["horizon"])
    until = rows["updates"].where(rows["reached"], np.inf)
    seed = np.unique(rows["seed"], return_inverse=True)[1]
    return rows[["rate", "decay"]].assign(above=above, until=until, seed=seed).to_records(index=False)


def log_normal(mean: Mean, low: np.ndarray, high: np.ndarray, weights: np.ndarray) -> Objective:
    """Minus the log likelihood of log times in (low, high] [n], normal about `mean`, each counted weights [R, n] times.

    The last of a row of parameters is the log of the standard deviation. Curvature is exact but for that of `mean`.
    """

    def objective(theta: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mu, slope = mean(theta[:, :-1])
        sd, w = np.exp(theta[:, -1:]), weights[rows]
        a, b = (low - mu) / sd, (high - mu) / sd
        upper = a + b > 0  # there both tails are taken from above, where they keep their digits
        right = log_ndtr(np.where(upper, -a, b))
        log_p = right + np.log1p(-np.exp(log_ndtr(np.where(upper, -b, a)) - right))
        at_a, at_b = (np.exp(-z * z / 2 - np.log(2 * np.pi) / 2 - log_p) for z in (a, b))
        a, b = np.where(np.isfinite(a), a, 0), np.where(np.isfinite(b), b, 0)  # the density there is 0
        first = at_a - at_b  # of log p by the mean, in sd; spread is that by the log of sd
        spread = a * at_a - b * at_b
        by_mean = w * (spread - first**2) / sd**2
        by_both = w * ((a * a - 1) * at_a - (b * b - 1) * at_b - first * spread) / sd
        by_spread = w * ((a**2 - 1) * a * at_a - (b**2 - 1) * b * at_b - spread**2)
        gradient = np.concatenate([_sum(w * first / sd, slope), (w * spread).sum(1, keepdims=True)], axis=1)
        curvature = np.empty((*theta.shape, theta.shape[1]))
        curvature[:, :-1, :-1] = _sum(by_mean, slope[..., :, None] * slope[..., None, :])
        curvature[:, :-1, -1] = curvature[:, -1, :-1] = _sum(by_both, slope)
        curvature[:, -1, -1] = by_spread.sum(1)
        return -(w * log_p).sum(1), -gradient, -curvature

    return objective


def _sum(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Sum over n of weights [R, n] × values [R or 1, n, …]."""
    if len(values) == 1:
        return np.tensordot(weights, values[0], axes=1)
    return np.einsum("rn,rn...->r...", weights, values)


class Law(NamedTuple):
    """What is fitted: bounds of log times [n], the mean of their logs, and where a fit may start [starts, p]."""

    low: np.ndarray
    high: np.ndarray
    mean: Mean
    starts: np.ndarray


def product_law(t: np.recarray) -> Law:
    """log (T − 25) linear in log (rate × decay) and log (rate / decay)."""
    x = np.stack([np.ones(len(t.rate)), np.log(t.rate * t.decay), np.log(t.rate / t.decay)], axis=1)
    low, high = _logs(t, WARM_UP_COST)
    start = np.linalg.lstsq(x, np.where(np.isfinite(high), high, low), rcond=None)[0]
    return Law(low, high, lambda theta: (theta @ x.T, x[None]), np.r_[start, np.log(0.2)][None])


def timescale_law(t: np.recarray) -> Law:
    """log T = log (T₀ + c τ^γ) in log T₀, log c and γ, so T₀ ≥ 0. Starts at shares of the least T, as a fit that is
    once at T₀ = 0 stays there."""
    tau, (low, high) = -np.log(t.rate * t.decay), _logs(t, 0)
    middle = np.where(np.isfinite(high), high, low)

    def mean(theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fixed, varying = theta[:, :1], theta[:, 1:2] + theta[:, 2:3] * tau
        total = np.logaddexp(fixed, varying)
        share = np.exp(varying - total)
        return total, np.stack([np.exp(fixed - total), share, share * tau], axis=2)

    starts = []
    for fixed in middle.min() + np.log([0.05, 0.4, 0.8]):
        slope, intercept = np.polyfit(tau, np.log(np.exp(middle) - np.exp(fixed)), 1)
        starts.append([fixed, intercept, slope, np.log(0.2)])
    return Law(low, high, mean, np.array(starts))


def _logs(t: np.recarray, cost: float) -> tuple[np.ndarray, np.ndarray]:
    """Logs of the bounds of T less `cost`; −∞ below it. ValueError where a member reaches no later than that."""
    if t.until.min() <= cost:
        raise ValueError(f"a member reaches after {t.until.min():g} updates: the law speaks of more than {cost:g}")
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(t.above - cost, 0)), np.log(t.until - cost)


LAWS = {
    "product": (product_law, ["intercept", "rate × decay", "rate / decay", "sd"], [False, False, False, True]),
    "timescale": (timescale_law, ["T0", "c", "gamma", "sd"], [True, True, False, True]),  # True: found as a log
}


def fit(law: Law, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most likely parameters [R, p] for each row of weights [R, n], and minus its log likelihood [R]."""
    return best_fits(log_normal(law.mean, law.low, law.high, weights), law.starts, len(weights))


def laws(members: pd.DataFrame, resamples: int = RESAMPLES) -> pd.DataFrame:
    """Both laws of each operation and arm over its cells that count: operation, schedule, law, cells, n, seeds, aic,
    coefficient, estimate, low, high (95 %), low_90, high_90.

    `product`: log-normal survival regression of T − 25 on log (rate × decay) and log (rate / decay); `timescale`:
    T = T₀ + c τ^γ, log-normal about it. Intervals are bootstrap intervals over seeds. Both have four parameters, and a
    likelihood of the same events, so their AIC compare. A law has no rows where the cells cannot tell its parameters
    apart: all cells on a line of log rate and log decay, or fewer than three values of τ.
    """
    rows = []
    for (operation, arm), cells in surface(members).query("counts").groupby(["operation", "schedule"], sort=False):
        t = times(members, cells)
        seeds = int(t.seed.max() + 1)
        weights = seed_weights(np.ones((seeds, 1)), resamples)[:, t.seed]
        plane = np.linalg.matrix_rank(np.c_[np.ones(len(cells)), np.log(cells[["rate", "decay"]])]) == 3
        told = {"product": plane, "timescale": cells["tau"].round(6).nunique() >= 3}
        for name, (law, coefficients, logs) in LAWS.items():
            if not told[name]:
                continue
            theta, values = fit(law(t), weights)
            key = {"operation": operation, "schedule": arm, "law": name, "cells": len(cells), "n": len(t.seed)}
            key |= {"seeds": seeds, "aic": 2 * len(coefficients) + 2 * values[0]}
            rows += with_intervals(key, coefficients, np.where(logs, np.exp(theta), theta), seeds)
    return pd.DataFrame(rows)
