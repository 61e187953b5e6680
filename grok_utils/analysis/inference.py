"""What the evidence allows to be said: sign-flip tests, Holm, equivalence, verdicts, other clocks, and robustness.

Everything stands on `crossings.crossings`, a row a member. No member is left out: one that diverges counts as the
horizon, also when it diverges after crossing. A pair is a seed that two arms share: the same split, the same start.
"""

from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from scipy import stats

from grok_utils.analysis.crossings import GROUP, MEMBER, by_cell, crossings, ended_early, measured
from grok_utils.analysis.intervals import SEED, mean_interval, share_interval
from grok_utils.studies import THRESHOLD

ALPHA = 0.05
REACHED = 0.80  # share of each arm's seeds that must reach 99 % before equivalence can be claimed
EXACT_UP_TO, SIGN_PATTERNS = 20, 100_000  # pairs whose sign patterns are all counted; patterns drawn of more pairs
EXAMPLES_HORIZON = 1_297_120  # what `exponential` sees in 7,500 updates


class Contrast(NamedTuple):
    """An arm less its reference over n common seeds: mean difference with its 95 % and 90 % intervals, p, and the
    difference in per cent of the reference's mean (NaN where that is 0)."""

    n: int
    reference_mean: float
    difference: float
    low: float
    high: float
    low_90: float
    high_90: float
    p: float
    percent: float


def complete(values: Any) -> np.ndarray:
    """The values as floats, ascending: no resampling depends on their order. ValueError where one is not finite."""
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).all():
        raise ValueError(f"{(~np.isfinite(x)).sum()} of {len(x)} values are not finite, and none may be left out")
    return np.sort(x)


def sign_flip_p(differences: Any) -> float:
    """Two-sided p of the paired sign-flip permutation test of the mean difference; 1 where all differences are 0.

    Under the null hypothesis arm and reference are exchangeable within a pair. Up to EXACT_UP_TO pairs the share of all
    2ⁿ sign patterns whose sum is at least as far from 0; beyond, (hits + 1) / (SIGN_PATTERNS + 1) of random ones.
    scipy's permutation_test does the same in 4 s instead of 10 ms at n = 20, and 0.6 s instead of 0.1 s at n = 120.
    """
    return _sign_flip_p(complete(differences).tobytes())


@cache  # a contrast is asked for at several horizons, against several rivals and by several claims
def _sign_flip_p(values: bytes) -> float:
    d = np.frombuffer(values)
    least = abs(d.sum()) - 1e-12 * np.abs(d).sum()  # sums that tie may differ so much, the observed one from itself
    if len(d) <= EXACT_UP_TO:
        sums = np.zeros(1)
        for x in d:
            sums = np.concatenate([sums + x, sums - x])
        return float(np.mean(np.abs(sums) >= least))
    hits = np.count_nonzero(np.abs(_sign_patterns(len(d)) @ d) >= least)
    return float((hits + 1) / (SIGN_PATTERNS + 1))


@lru_cache(maxsize=2)
def _sign_patterns(n: int) -> np.ndarray:
    """Random signs [SIGN_PATTERNS, n], as floats: at n = 60 drawing them takes longer than what is done with them."""
    return 2.0 * np.random.default_rng(SEED).integers(0, 2, (SIGN_PATTERNS, n), dtype=np.int8) - 1


def pairs(
    members: pd.DataFrame, arm: str, reference: str, operation: str, column: str = "restricted", cell: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """`column` of arm and reference on one operation at their common seeds, as floats.

    `cell` is that of both (None: whichever an arm has). ValueError where a seed comes twice.
    """
    here = (members["operation"] == operation).to_numpy() & ((members["cell"] == cell).to_numpy() | (cell is None))
    schedule, seed, values = members["schedule"], members["seed"].to_numpy(), members[column].to_numpy(dtype=float)
    ours, theirs = (here & (schedule == name).to_numpy() for name in (arm, reference))
    if any(len(np.unique(seed[rows])) < np.count_nonzero(rows) for rows in (ours, theirs)):
        raise ValueError(f"{arm}, {reference} on {operation}: a seed comes twice")
    _, i, j = np.intersect1d(seed[ours], seed[theirs], assume_unique=True, return_indices=True)
    return values[ours][i], values[theirs][j]


def paired_contrast(
    members: pd.DataFrame, arm: str, reference: str, operation: str, column: str = "restricted", cell: str | None = None
) -> Contrast:
    """`arm` less `reference` on one operation, over their common seeds; `members` is a row a member, as `crossings`.

    `column` may be any other of its columns; with `reached`, p is McNemar's exact test. `cell` is that of both (None:
    whichever an arm has). Intervals are NaN as in `mean_interval`; without pairs all is. They and p are not corrected
    for the number of contrasts (see `holm`). ValueError where a seed comes twice.
    """
    ours, theirs = pairs(members, arm, reference, operation, column, cell)
    if not len(ours):
        return Contrast(0, *[np.nan] * 8)
    d = complete(ours - theirs)
    intervals = *mean_interval(d)[3:], *mean_interval(d, level=1 - 2 * ALPHA)[3:]
    if column == "reached" and d.any():
        p = float(stats.binomtest(np.count_nonzero(d > 0), np.count_nonzero(d)).pvalue)
    else:
        p = sign_flip_p(d)
    mean, difference = float(theirs.mean()), float(d.mean())
    return Contrast(len(d), mean, difference, *intervals, p, 100 * difference / mean if mean else np.nan)


def holm(p_values: Any) -> np.ndarray:
    """Holm's step-down adjusted p of one family, in the order given. NaN (no test) stays NaN and counts in its size."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)  # NaN last
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def equivalent(contrast: Contrast, margin: float, reached_shares: Iterable[float]) -> bool | None:
    """Does the 90 % paired interval lie inside ±margin? None, cannot tell, where there is no interval or where fewer
    than 80 % of either arm's seeds reach 99 % (those that never grok agree whatever the arm). True is the outcome of
    two one-sided tests at 5 %."""
    if np.isnan(contrast.low_90) or not all(share >= REACHED for share in reached_shares):
        return None
    return bool(-margin < contrast.low_90 and contrast.high_90 < margin)


def verdict(difference: float, adjusted_p: float, same: bool | None, claimed: int) -> str:
    """supported, contradicted, equivalent or cannot tell, of a claim that the difference is < 0 (claimed −1), > 0 (1)
    or none (0). `same` is from `equivalent` and goes first: a difference within the margin is too small for either."""
    if same:
        return "equivalent" if claimed else "supported"
    if not adjusted_p < ALPHA:
        return "cannot tell"
    return "supported" if np.sign(difference) == claimed else "contradicted"


def share_band(members: pd.DataFrame, updates: Sequence[int] | None = None) -> pd.DataFrame:
    """Share grokked by each of `updates`: operation, schedule, cell, n, update, reached, share, low, high.

    It is the empirical distribution of the crossings; without `updates`, at both ends and wherever it steps.
    The band is pointwise: at each update alone the exact (Clopper–Pearson) interval holds the true share with at least
    95 % probability; that it holds the whole curve is less probable. ValueError for an update past the horizon.
    """
    horizon = members["horizon"].min()
    if updates is not None and max(updates) > horizon:
        raise ValueError(f"update {max(updates)} is past the horizon {horizon}: the share is unknown")
    tables = []
    for key, cell in by_cell(members):
        n, crossed = len(cell), np.sort(cell["updates"].dropna())
        at = np.unique(np.r_[0, crossed, horizon]).astype(int) if updates is None else updates
        k = np.searchsorted(crossed, at, side="right")
        low, high = np.transpose([share_interval(reached, n) for reached in k.tolist()])
        row = key | {"n": n, "update": at, "reached": k, "share": k / n, "low": low, "high": high}
        tables.append(pd.DataFrame(row))
    return pd.concat(tables, ignore_index=True)


def crossings_by_examples(frame: pd.DataFrame, horizon: int = EXAMPLES_HORIZON) -> pd.DataFrame:
    """`crossings` on the clock of examples seen, without the arms whose runs end before `horizon`.

    restricted is min(examples seen at the crossing, horizon), and reached says whether it came by then; horizon is in
    examples; updates stays in updates. Fit for `paired_contrast`.
    """
    table = crossings(frame)
    seen = frame.groupby(MEMBER)["examples_seen"].max().groupby("schedule").min()
    table = table[table["schedule"].isin(seen.index[seen >= horizon])].reset_index(drop=True)
    table["horizon"], table["reached"] = horizon, table["examples_seen"] <= horizon
    table.loc[~table["reached"], ["updates", "examples_seen"]] = np.nan
    table["restricted"] = table["examples_seen"].fillna(horizon)
    return table


def sustained_crossings(frame: pd.DataFrame, logs: int = 10) -> pd.DataFrame:
    """`crossings` at the first of the first `logs` logs in a row above 99 %; a run may end before they do."""
    frame = measured(frame, "val_accuracy")
    member = frame.groupby(MEMBER).ngroup().to_numpy()
    order = np.lexsort([frame["update"], member])
    frame, member = frame.iloc[order], member[order]
    accuracy = frame["val_accuracy"].to_numpy()
    beyond = np.full(logs - 1, np.nan, accuracy.dtype)
    least = sliding_window_view(np.concatenate([accuracy, beyond]), logs).min(axis=1)  # of this log and the next
    whole = np.append(member[logs - 1 :], beyond) == member
    least = np.where(whole & ~np.isnan(least), least, 0)  # too few are left
    least[np.isnan(accuracy)] = np.nan  # beyond an early end there are none
    return crossings(frame.assign(val_accuracy=least))


def instability(frame: pd.DataFrame) -> pd.DataFrame:
    """What each member does after its first crossing: the columns of MEMBER, diverged, updates (of the crossing),
    logs_after, share_below (of those logs, not above 99 %; NaN where there are none), final_accuracy.

    Unlike in `crossings`, a member that diverges after its crossing has crossed: it is the least stable of all.
    ValueError where a run ended early, but for members that had diverged.
    """
    if (ended_early(frame) & ~frame.groupby(MEMBER)["diverged"].any()).any():
        raise ValueError("runs ended early: what their members would have done afterwards is not known")
    frame = measured(frame, "val_accuracy")
    first = crossings(frame.assign(diverged=False)).set_index(MEMBER)["updates"]
    later = frame.join(first.rename("first"), on=MEMBER).query("update > first")
    below = (~(later["val_accuracy"] > np.float32(THRESHOLD))).groupby([later[name] for name in MEMBER])
    table = pd.DataFrame({"diverged": frame.groupby(MEMBER)["diverged"].any(), "updates": first}).loc[first.index]
    table["logs_after"] = below.size().reindex(table.index, fill_value=0)
    table["share_below"] = below.mean()
    table["final_accuracy"] = frame.sort_values("update").groupby(MEMBER).tail(1).set_index(MEMBER)["val_accuracy"]
    return table.reset_index()


def after_touch(frame: pd.DataFrame, later: int = 500) -> pd.DataFrame:
    """Share of members above 99 % `later` updates after their first crossing, of those that cross by the
    horizon less `later`: operation, schedule, cell, n (of those), above, share, low, high (exact, 95 %).

    As in `instability`, a member that diverges after its crossing has crossed, and is not above. ValueError where a run
    ended early, before `later` updates had passed.
    """
    # What has diverged is above no more, also beyond the end of its run.
    accuracy = frame["val_accuracy"].mask(frame["diverged"] & frame["val_accuracy"].isna(), 0)
    frame = frame.assign(diverged=False, val_accuracy=accuracy)
    touched = crossings(frame).query("updates <= horizon - @later")
    at = touched.assign(update=touched["updates"] + later)[[*MEMBER, "update"]].merge(frame, on=[*MEMBER, "update"])
    if at["val_accuracy"].isna().any():
        raise ValueError(f"runs ended early, less than {later} updates after a crossing")
    rows = []
    for key, cell in by_cell(at):
        n, above = len(cell), int((cell["val_accuracy"] > np.float32(THRESHOLD)).sum())
        low, high = share_interval(above, n)
        rows.append(key | {"n": n, "above": above, "share": above / n, "low": low, "high": high})
    return pd.DataFrame(rows, columns=[*GROUP, "n", "above", "share", "low", "high"])
