"""What 60 and 30 seeds can tell at the spreads of stage 2 (ANALYSIS_PLAN.md, part two, "Power")."""

from functools import cache

import numpy as np
import pandas as pd
from scipy import stats

from grok_utils.analysis import equivalence
from grok_utils.analysis.inference import ALPHA, pairs
from grok_utils.tuned.decisions import OF_PAIR, at_chosen, comparisons, in_families
from grok_utils.tuned.stages import ITS_CHOICE

SEEDS, EFFECT = (30, 60), 0.10  # of stage 3; a difference as a share of the reference's mean


def power(members: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """What SEEDS seeds can tell at the spreads of stage 2's `members`, restricted at HORIZON ("Power").

    For each of the families' contrasts and number of seeds: family, outcome, operation, schedule, reference, seeds,
    sd (of the paired differences, as a share of the reference's mean), sd_log (of the logs of the ratios), and the
    probability that a difference of EFFECT is found by a test alone (difference) and at the first step of Holm's
    correction (in_family; x − y counts, as x / y), and that equal arms are found equivalent.
    """
    at, rows = at_chosen(members, chosen), []
    at = at[in_families(at)]
    for key in comparisons(at):
        of = at[at["outcome"] == key["outcome"]]
        arms = OF_PAIR(key)
        x, y = pairs(of, *arms, "restricted")
        logs = np.log(np.divide(*pairs(of, *arms, "updates")))
        ours, theirs = pairs(of, *arms, "reached")
        unlike = (ours > theirs).mean(), (ours < theirs).mean()
        spread = {"sd": sd_of(x - y) / y.mean(), "sd_log": sd_of(logs)}
        rows += [key | spread | {"seeds": n, "unlike": unlike} for n in SEEDS]
    table = pd.DataFrame(rows)
    size = (table["operation"] == ITS_CHOICE) + 1
    tests = size.groupby([table[name] for name in ("family", "outcome", "seeds")]).transform("sum")
    of = list(zip(table["sd"], table["sd_log"], table["seeds"], table.pop("unlike"), tests, strict=True))
    table["difference"] = [t_power(EFFECT / sd, n, ALPHA) for sd, _, n, _, _ in of]
    table["in_family"] = [t_power(EFFECT / sd, n, ALPHA / m) for sd, _, n, _, m in of]
    table["equivalence"] = [ratio_power(sd_log, n) * shares_power(*unlike, n) for _, sd_log, n, unlike, _ in of]
    return table


def sd_of(values: np.ndarray) -> float:
    """The standard deviation of those that are known; NaN where fewer than two or equal ones show none."""
    x = values[np.isfinite(values)]
    return float(np.std(x, ddof=1)) if len(x) > 1 and np.ptp(x) else np.nan


def t_power(effect: float, n: int, alpha: float) -> float:
    """Power of a two-sided paired t-test of a mean `effect` standard deviations from 0 (Cohen, Statistical Power
    Analysis, 2nd ed. 1988, ch. 2); the sign-flip test has the same to first order. It is averaged over the estimated
    standard deviation, as scipy's noncentral t is NaN for large effects."""
    least, shift = stats.t.ppf(1 - alpha / 2, n - 1) * estimated_sd(n), effect * np.sqrt(n)
    return float((stats.norm.cdf(shift - least) + stats.norm.cdf(-shift - least)).mean())


def estimated_sd(n: int, grid: int = 2_000) -> np.ndarray:
    """Evenly spaced quantiles of a standard deviation estimated from n values, over the true one."""
    return np.sqrt(stats.chi2.ppf((np.arange(grid) + 0.5) / grid, n - 1) / (n - 1))


def ratio_power(sd: float, n: int) -> float:
    """Probability that the 90 % t-interval of a ratio lies within the margins where the truth is 1 and its logs have
    this `sd`: two one-sided tests (Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987) 657–680), averaged over the
    distribution of the estimated standard deviation."""
    se = sd / np.sqrt(n)
    half = stats.t.ppf(1 - ALPHA, n - 1) * se * estimated_sd(n)
    low, high = np.log(equivalence.RATIOS)
    inside = stats.norm.cdf((high - half) / se) - stats.norm.cdf((low + half) / se)
    return float(np.maximum(inside, 0).mean())


@cache
def shares_power(only: float, other: float, n: int) -> float:
    """Probability that the 90 % score interval of the difference of two paired shares lies within the margin, where
    `only` and `other` are the probabilities that a pair reaches in the one arm alone and in the other alone."""
    total = 0.0
    for i in range(n + 1):
        for j in range(n + 1 - i):
            chance = stats.multinomial.pmf([i, j, n - i - j], n, [only, other, 1 - only - other])
            if chance > 1e-6 and abs(i - j) / n < equivalence.SHARE_MARGIN:
                low, high = equivalence.score_interval(i, j, n, 1 - 2 * ALPHA)
                total += chance * (max(-low, high) <= equivalence.SHARE_MARGIN)
    return float(total)
