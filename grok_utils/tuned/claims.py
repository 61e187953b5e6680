"""The fourteen claims, a second verdict: whether each holds tuned (ANALYSIS_PLAN.md, part two).

`at` is stage 3's members at each of HORIZONS, as `decisions.at_horizons` gives, and `chosen` stage 2's table.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from grok_utils.analysis.inference import ALPHA, holm, paired_contrast
from grok_utils.evidence import claims as part_one
from grok_utils.evidence import rules
from grok_utils.evidence.claims import MODULAR
from grok_utils.evidence.rules import Comparison
from grok_utils.tuned import decisions
from grok_utils.tuned.decisions import CANNOT_TELL, DEPENDS, EQUIVALENT, HORIZON, HORIZONS, LATER, OUTCOMES, SOONER

HOLDS, DOES_NOT_HOLD, NOT_TESTED = "holds", "does not hold", "not tested"
HIGHER, LOWER = "higher", "lower"
COMPARATOR = "the comparator"
SETTLED = "wrong by its own"  # formula or arithmetic: how such a verdict of part one begins
LAST = HORIZONS[-1]
At = Mapping[int, pd.DataFrame]
S5 = "permutation"
WINDOWS = (500, 2000)  # updates, of claim 3
CLAIMED = {-1: SOONER, 1: LATER}
OTHERWISE = {-1: LOWER, 1: HIGHER, 0: EQUIVALENT}  # of what is no time: at the last log that both arms have
SHARE_OF = {c.number: c.share_of for c in part_one.CLAIMS if c.share_of and not c.family}  # of permutation, counted
FAMILIES = {claim.number: claim.family for claim in part_one.CLAIMS if claim.family}  # but for claim 3
FAMILIES[3] = tuple(
    Comparison(f"linear-{w}", r, o, -1) for w in WINDOWS for r in (f"shrinking-{w}", COMPARATOR) for o in MODULAR
)


def claim_contrasts(
    at: At,
    chosen: pd.DataFrame,
    outcome: str = "touch",
    horizon: int = HORIZON,
    numbers: Collection[int] = FAMILIES.keys(),
) -> pd.DataFrame:
    """A row for each test of the FAMILIES of the claims `numbers`: claim, arm, reference, operation, the verdict
    claimed, column, `decisions.contrast`, adjusted_p ("A row is a Holm family": of the tests that have data) and
    verdict; without data n is 0 and it is "not tested".

    "Kept on permutation is in none": by kept there are no tests on it.
    """
    members = {h: (rows := decisions.at_chosen(table, chosen))[rows["outcome"] == outcome] for h, table in at.items()}
    rows = []
    for number in sorted(FAMILIES.keys() & set(numbers)):
        for test in FAMILIES[number]:
            if outcome == "touch" or test.operation != S5:
                claimed = (CLAIMED if test.column == "restricted" else OTHERWISE)[test.claimed]
                row = {"claim": number, "arm": test.arm, "reference": test.reference, "operation": test.operation}
                rows.append(row | {"claimed": claimed, "column": test.column} | tested(test, members, horizon))
    if not rows:
        return pd.DataFrame(columns=["claim"])
    table = pd.DataFrame(rows)
    table["adjusted_p"] = table[table["n"] > 0].groupby("claim")["p"].transform(holm)
    judge = {"restricted": decisions.verdict, "final_accuracy": of_accuracy, "reached": of_accuracy}
    table["verdict"] = [judge[row["column"]](row) if row["n"] else NOT_TESTED for row in table.to_dict("records")]
    return table


def tested(test: Comparison, members: At, horizon: int) -> dict[str, Any]:
    """The row of a test: that of `decisions.contrast` at `horizon`, or of final accuracy or shares "at the last common
    log", the end of the shorter of the two arms' runs. n is 0 where stage 3 lacks an arm."""
    here = members[horizon].query("operation == @test.operation")
    of_arm = here[here["schedule"] == test.arm]
    reference = test.reference if test.reference != COMPARATOR else of_arm["comparator"].max()
    two = here[here["schedule"].isin([test.arm, reference])]
    if two["schedule"].nunique() < 2:
        return {"n": 0, "p": np.nan}
    if test.column == "restricted":
        return decisions.contrast(here, test.arm, reference, test.operation) | {"reference": reference}
    common = members[max(h for h in members if h <= two["horizon"].min())]
    c = paired_contrast(common, test.arm, reference, test.operation, test.column)
    return c._asdict() | {"equivalent": max(-c.low_90, c.high_90) < (test.margin or 0)}


def of_accuracy(row: Mapping[str, Any]) -> str:
    """Of a contrast of final accuracy or of shares: equivalent is looked at first, then the adjusted p."""
    if row["equivalent"]:
        return EQUIVALENT
    if not row["adjusted_p"] < ALPHA:
        return CANNOT_TELL
    return HIGHER if row["difference"] > 0 else LOWER


def holding(rows: pd.DataFrame, decide: rules.Rule = rules.by_contrasts) -> str:
    """The verdict by a rule of part one, of the contrasts of which stage 3 has data.

    Most claims: "Holds: every contrast is as claimed. Does not hold: one is the other way, or equivalent where a
    difference is claimed. Cannot tell: everything else, unresolved differences too. Not tested: stage 3 has no data for
    an arm and operation that the row needs". Claim 11: "holds if one contrast is as claimed, and does not if all are
    the other way or equivalent; it is not tested only if stage 3 has none of them". Claim 14: "does not hold if
    accuracy (sign-flip) or shares (McNemar) differ at adjusted p below 0.05"; it holds where accuracy is equivalent and
    shares do not differ, as in part one.
    """
    made = rows[rows["verdict"] != NOT_TESTED]
    if made.empty or (len(made) < len(rows) and decide is not rules.by_any):
        return NOT_TESTED
    cases = [made["verdict"] == made["claimed"], made["verdict"].isin([CANNOT_TELL, decisions.UNRESOLVED])]
    verdict = np.select(cases, ["supported", "cannot tell"], "contradicted")
    found = decide(made.assign(verdict=verdict, decides=True))
    return {"supported": HOLDS, "contradicted": DOES_NOT_HOLD}.get(found, CANNOT_TELL)


def by_windows(rows: pd.DataFrame) -> str:
    """Claim 3: "holds if for one W linear-W is sooner than both on all three modular operations. It does not hold if
    for each W it is later than, or equivalent to, one of the two somewhere. If stage 3 has one W alone, that one
    decides"."""
    found = {holding(of) for _, of in rows.groupby("arm")} - {NOT_TESTED}
    if HOLDS in found:
        return HOLDS
    return NOT_TESTED if not found else CANNOT_TELL if CANNOT_TELL in found else DOES_NOT_HOLD


def by_count(number: int, rows: pd.DataFrame) -> str:
    """Claim 2: "holds if no seed reaches by 7,500, not if any does; else cannot tell"; 13: "holds if below 100 % by
    7,500, not if all seeds reach; else cannot tell".

    `rows` are the arm's members. A member never reaches if it diverges, or does not in a run of 7,500 updates.
    """
    if rows.empty:
        return NOT_TESTED
    count = any if number == 2 else all
    may_reach = rows["reached"] | ~(rows["diverged"] | (rows["horizon"] >= LAST))
    return DOES_NOT_HOLD if count(rows["reached"]) else CANNOT_TELL if count(may_reach) else HOLDS


def second_verdicts(at: At, chosen: pd.DataFrame, first: pd.Series) -> pd.DataFrame:
    """A row for each claim of `first`, part one's verdicts by number: first, tuned (by touch), kept, survives.

    "What is wrong by its own formula or arithmetic stays so". kept is empty where a claim speaks of final accuracy.
    "A claim survives tuning if it is supported in the first and holds in the second".
    """
    tuned, kept = (by_outcome(at, chosen, first, outcome) for outcome in OUTCOMES)
    survives = (first == "supported") & (tuned == HOLDS)
    return pd.DataFrame({"first": first, "tuned": tuned, "kept": kept, "survives": survives})


def by_outcome(at: At, chosen: pd.DataFrame, first: pd.Series, outcome: str) -> pd.Series:
    """The verdict tuned of each claim of `first`, by one outcome."""
    unsettled = first.index[~first.str.startswith(SETTLED)]
    tables = [claim_contrasts(at, chosen, outcome, horizon, unsettled) for horizon in at]
    last = decisions.at_chosen(at[LAST], chosen).query("outcome == @outcome and operation == @S5")
    return first.mask(first.index.isin(unsettled), pd.Series({n: decided(n, tables, last) for n in unsettled}))


def decided(number: int, tables: list[pd.DataFrame], permutation: pd.DataFrame) -> str:
    """A claim's verdict from `claim_contrasts` at each horizon, or from the members on permutation at the last one;
    "depends on the horizon" where it changes, empty where there is nothing to decide it."""
    if number in SHARE_OF:
        return by_count(number, permutation[permutation["schedule"] == SHARE_OF[number]])
    rule = by_windows if number == 3 else partial(holding, decide=part_one.CLAIMS[number - 1].decide)
    found = {rule(of) for rows in tables if len(of := rows[rows["claim"] == number])}
    return DEPENDS if len(found) > 1 else next(iter(found), "")
