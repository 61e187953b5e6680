"""Two arms side by side, by part two of the plan: the ratio of their costs, the difference of the shares that reach.

`members` is a row a member, as `crossings.crossings` gives, each arm at one cell. A pair is a seed that both arms have.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize, stats

from grok_utils.analysis.inference import ALPHA, pairs
from grok_utils.analysis.intervals import SEED, mean_interval

RATIOS = 0.90, 1.11  # of two costs that count as the same
SHARE_MARGIN = 0.10  # between two shares that count as the same
LEVEL = 1 - 2 * ALPHA  # of the intervals: two one-sided tests at ALPHA


class Paired(NamedTuple):
    """An estimate over the n common seeds of two arms, and its interval."""

    n: int
    estimate: float
    low: float
    high: float


def ratio(members: pd.DataFrame, arm: str, reference: str, operation: str, column: str = "updates") -> Paired:
    """`column` (updates, or examples_seen) of `arm` over that of `reference`, geometric mean of the seeds that reach
    in both: the 90 % interval is `mean_interval`'s of the logs' paired differences, so there is none of fewer than two
    seeds or of equal ratios."""
    ours, theirs = pairs(members, arm, reference, operation, column)
    found = mean_interval(np.log(ours / theirs), level=LEVEL)
    return Paired(found.n, *np.exp([found.mean, found.low, found.high]).tolist())


def unpaired_ratio(ours: Any, theirs: Any) -> tuple[float, float, float]:
    """The geometric mean of `ours` over that of `theirs`, runs without common seeds, and its 90 % interval by Welch's t
    of the logs; all NaN where either has fewer than two runs."""
    a, b = np.log(ours), np.log(theirs)
    if min(len(a), len(b)) < 2:
        return np.nan, np.nan, np.nan
    low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval(LEVEL)
    return float(np.exp(a.mean() - b.mean())), float(np.exp(low)), float(np.exp(high))


def as_drawn(frame: pd.DataFrame, examples: int) -> pd.DataFrame:
    """The logs as if validation accuracy were scored on so many examples, drawn with replacement at each log."""
    drawn = np.random.default_rng(SEED).binomial(examples, frame["val_accuracy"].fillna(0))
    return frame.assign(val_accuracy=(drawn / examples).astype(np.float32))


def shares(members: pd.DataFrame, arm: str, reference: str, operation: str) -> Paired:
    """The difference of the shares that reach, with its 90 % score interval; all NaN without pairs."""
    ours, theirs = pairs(members, arm, reference, operation, "reached")
    n, only, other = len(ours), int((ours > theirs).sum()), int((ours < theirs).sum())
    return Paired(n, (only - other) / n, *score_interval(only, other, n, LEVEL)) if n else Paired(0, *[np.nan] * 3)


def score_interval(only: int, other: int, n: int, level: float) -> tuple[float, float]:
    """Score interval of the difference of two paired shares, (only − other) / n: Tango, Stat. Med. 17 (1998) 891–908.

    Of n pairs `only` have the first outcome alone and `other` the second alone. The differences δ that a score test
    does not reject, |only − other − nδ| ≤ z √(n (2q + δ(1 − δ))), where q is the most likely share of `other` at δ.
    """
    z, difference = stats.norm.ppf((1 + level) / 2), (only - other) / n

    def score(delta: float) -> float:
        b, c = (2 * n - only + other) * delta - only - other, -other * delta * (1 - delta)
        q = (np.sqrt(max(b * b - 8 * n * c, 0)) - b) / (4 * n)  # which rounding may take below 0
        variance = n * (2 * q + delta * (1 - delta))
        excess = only - other - n * delta
        return float(excess * excess - z * z * variance)

    near = 1e-12  # without unlike pairs the score is 0 at the difference itself
    low = optimize.brentq(score, -1, difference - near) if difference > -1 else -1.0
    high = optimize.brentq(score, difference + near, 1) if difference < 1 else 1.0
    return low, high


def equivalent(costs: Paired, reached: Paired) -> bool | None:
    """Do the 90 % intervals of the ratio and of the difference of shares lie inside the margins? None, cannot tell,
    where the ratio has no interval. True is the outcome of two one-sided tests at 5 % of each."""
    if np.isnan(costs.low):
        return None
    low, high = RATIOS
    return low <= costs.low and costs.high <= high and max(-reached.low, reached.high) <= SHARE_MARGIN
