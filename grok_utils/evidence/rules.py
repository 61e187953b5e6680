"""What a claim is, how two arms are compared, and the rules of ANALYSIS_PLAN.md by which comparisons decide it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from grok_utils.analysis.inference import equivalent, paired_contrast
from grok_utils.evidence.members import STUDIES, of_study

MARGIN = 0.05  # of the baseline's RMST on the operation, in `confirm`
Rule = Callable[[pd.DataFrame], str]  # from a claim's rows of `claims.all_contrasts` to its verdict


@dataclass(frozen=True)
class Comparison:
    """A contrast that a claim speaks of: `arm` less `reference` is claimed to be < 0 (−1), > 0 (1) or none (0)."""

    arm: str
    reference: str
    operation: str
    claimed: int
    column: str = "restricted"  # time; or final_accuracy, reached
    study: str = STUDIES[0]
    margin: float | None = None  # of equivalence, where it is not that of times
    decides: bool = True  # or is in the family without deciding the claim


def by_contrasts(rows: pd.DataFrame) -> str:
    """Supported if every deciding contrast is; contradicted if one is, or is equivalent where they should differ."""
    found = rows.loc[rows["decides"], "verdict"]
    if found.isin(["contradicted", "equivalent"]).any():
        return "contradicted"
    return "supported" if (found == "supported").all() else "cannot tell"


def by_order(rows: pd.DataFrame) -> str:
    """Claim 3: as `by_contrasts`, but equivalence with the reverse contradicts nothing: with the mean alone."""
    reversed_too = (rows["reference"] == "linear-reversed") & (rows["verdict"] == "equivalent")
    return by_contrasts(rows.assign(verdict=rows["verdict"].mask(reversed_too, "cannot tell")))


def by_any(rows: pd.DataFrame) -> str:
    """Of a claim that there is a case: supported by one, contradicted if every contrast is against it or equivalent."""
    if (rows["verdict"] == "supported").any():
        return "supported"
    return "contradicted" if rows["verdict"].isin(["contradicted", "equivalent"]).all() else "cannot tell"


def by_accuracy_and_share(rows: pd.DataFrame) -> str:
    """Claim 14: that of final accuracy, unless the shares differ."""
    return "contradicted" if (rows["verdict"] == "contradicted").any() else rows["verdict"].iloc[0]


@dataclass(frozen=True)
class Claim:
    """A claim, its family of comparisons, and the rule that decides it."""

    number: int
    text: str
    family: tuple[Comparison, ...] = ()
    decide: Rule = by_contrasts
    share_of: str | None = None  # the arm whose share of seeds that grok permutation it speaks of
    unless: Callable[[Iterable[bool]], bool] | None = None  # `any` or `all` of these seeds grok, where that decides it
    settled: str | None = None  # its verdict where the original's own formula or numbers give it
    formula: str | None = None  # what that formula gives, in words, where it speaks of that


def margins(members: pd.DataFrame) -> dict[str, float]:
    """The margin of equivalence of times on each operation, in the unit of `members`' clock."""
    baseline = of_study(members, STUDIES[0]).query("schedule == 'baseline'")
    return (MARGIN * baseline.groupby("operation")["restricted"].mean()).to_dict()


def contrast(
    members: pd.DataFrame, arm: str, reference: str, operation: str, margin: float | None, column: str = "restricted"
) -> dict[str, Any]:
    """The `Contrast` of two arms of `members`, with margin and equivalent.

    Without a margin nothing is equivalent; of times only where enough seeds of both arms reach 99 %.
    """
    c, rows = paired_contrast(members, arm, reference, operation, column), members[members["operation"] == operation]
    timed = (arm, reference) if column == "restricted" else ()
    shares = [rows.loc[rows["schedule"] == name, "reached"].mean() for name in timed]
    same = None if margin is None else equivalent(c, margin, shares)
    return c._asdict() | {"margin": margin, "equivalent": same}
