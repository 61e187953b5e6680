"""The original's fourteen claims as ANALYSIS_PLAN.md has them: what each speaks of, and the rule that decides it."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from grok_utils.analysis.inference import holm, verdict
from grok_utils.analysis.reported import REPORTED_ARMS, reported_mean
from grok_utils.analysis.summaries import RMST
from grok_utils.evidence import rules
from grok_utils.evidence.members import CLOCKS, MODULAR, ORDER, of_arm, of_study
from grok_utils.evidence.rules import Claim, Comparison
from grok_utils.schedules import SCHEDULES, values
from grok_utils.studies import BATCH_RANGE, Study

ACCURACY_MARGIN = 0.05  # claim 14
LATER_BELOW = 128  # an arm grows later than another if more of its updates have batches below this
WRONG_FORMULA, WRONG_ARITHMETIC = "wrong by its own formula", "wrong by its own arithmetic"


def compare(
    arm: str, reference: str, operations: tuple[str, ...], claimed: int, **options: Any
) -> tuple[Comparison, ...]:
    """The same contrast on several operations."""
    return tuple(Comparison(arm, reference, operation, claimed, **options) for operation in operations)


def by_formula(arm: str) -> np.ndarray:
    """The batch size of each block by the original's formula and settings, before it is truncated: [750]."""
    return values(arm, Study.updates, **BATCH_RANGE)


def grows_later() -> list[tuple[str, str]]:
    """Pairs of the reported arms that grow: the one with more updates below a batch of 128 first."""
    growing = [arm for arm in REPORTED_ARMS if arm in SCHEDULES]
    share = {arm: (by_formula(arm) < LATER_BELOW).mean() for arm in growing}
    return [(a, b) for a in growing for b in growing if share[a] > share[b]]


def reported_later(arm: str, reference: str, operation: str) -> bool:
    """Whether the original's own means have `arm` later than `reference`."""
    return reported_mean(arm, operation, RMST) > reported_mean(reference, operation, RMST)


CONTROLS = {"mean": True, "reversed": True} | {f"shuffled-{i}": False for i in range(1, 6)}  # whether they decide
OF_ORDER = tuple(
    Comparison("linear", f"linear-{control}", operation, -1, study=study, decides=decides)
    for operation, study in ORDER.items()
    for control, decides in CONTROLS.items()
)
EVERY = (*MODULAR, "permutation")
DIV, MINUS, PLUS, S5 = ("x_div_y",), ("x_minus_y",), ("x_plus_y",), ("permutation",)
GROWTH = np.diff(by_formula("exponential"))  # from each block to the next
OTHERS = np.maximum(by_formula("linear"), by_formula("exponential"))
ABOVE = (by_formula("logarithmic") > OTHERS)[:-1]  # inside (0, T): at T all are alike
CLAIMS = (
    Claim(1, "Linear reaches 99 % sooner than the baseline", compare("linear", "baseline", MODULAR, -1)),
    Claim(2, "With linear, S₅ does not grok", share_of="linear", unless=any),
    Claim(3, "The gain comes from starting small and then growing", OF_ORDER, rules.by_order),
    Claim(
        4,
        "Exponential is slower than linear but faster than the baseline on x / y and x − y",
        compare("exponential", "linear", DIV + MINUS, 1) + compare("exponential", "baseline", DIV + MINUS, -1),
    ),
    Claim(
        5,
        "Exponential groks x + y faster than linear",
        compare("exponential", "linear", PLUS, -1),
        settled=WRONG_ARITHMETIC if reported_later("exponential", "linear", "x_plus_y") else None,
    ),
    Claim(
        6,
        "Exponential improves the final accuracy on S₅ over linear",
        compare("exponential", "linear", S5, 1, column="final_accuracy"),
    ),
    Claim(
        7,
        "Exponential grows faster early and slows down later",
        settled=WRONG_FORMULA if (np.diff(GROWTH) > 0).all() else None,
        formula=f"its batch grows by {GROWTH[0]:.2f} in the second block and by {GROWTH[-1]:.2f} in the last",
    ),
    Claim(
        8,
        "Logarithmic grows more slowly at first than linear and exponential",
        settled=WRONG_FORMULA if ABOVE.all() else None,
        formula=f"logarithmic is above linear and exponential in {ABOVE.sum()} of {len(ABOVE)} blocks before the last",
    ),
    Claim(
        9,
        "Logarithmic is between linear and exponential on x / y, and the slowest of all arms on x − y",
        compare("logarithmic", "linear", DIV, 1)
        + compare("logarithmic", "exponential", DIV, -1)
        + tuple(Comparison("logarithmic", arm, "x_minus_y", 1) for arm in REPORTED_ARMS if arm != "logarithmic"),
    ),
    Claim(
        10,
        "On x + y logarithmic is not as fast as exponential",
        compare("logarithmic", "exponential", PLUS, 1),
        settled=None if reported_later("logarithmic", "exponential", "x_plus_y") else WRONG_ARITHMETIC,
    ),
    Claim(
        11,
        "Slower growth of the batch is not universally beneficial",
        tuple(Comparison(later, earlier, o, 1) for o in EVERY for later, earlier in grows_later()),
        rules.by_any,
    ),
    Claim(
        12,
        "Cyclic combines the benefits of small and large batches",
        compare("cyclic", "baseline", MODULAR, -1) + compare("cyclic", "constant-256", MODULAR, -1),
    ),
    Claim(13, "Exponential does not fully grok S₅", share_of="exponential", unless=all),
    Claim(
        14,
        "Logarithmic leaves S₅ at the level of the baseline",
        compare("logarithmic", "baseline", S5, 0, column="final_accuracy", margin=ACCURACY_MARGIN)
        + compare("logarithmic", "baseline", S5, 0, column="reached", decides=False),
        rules.by_accuracy_and_share,
        share_of="logarithmic",
    ),
)


def all_contrasts(members: pd.DataFrame) -> pd.DataFrame:
    """A row for each of the claims' tests on one clock: claim, the test, its `contrast`, p_holm and verdict.

    `members` as `Evidence.members`, of one clock. p_holm is corrected within the claim's family, all its tests.
    """
    of_times, rows = rules.margins(members), []
    for claim in CLAIMS:
        for c in claim.family:
            margin = of_times.get(c.operation, np.nan) if c.column == "restricted" else c.margin
            found = rules.contrast(of_study(members, c.study), c.arm, c.reference, c.operation, margin, c.column)
            rows.append({"claim": claim.number} | asdict(c) | found)
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby("claim")["p"].transform(holm)
    table["verdict"] = [verdict(r.difference, r.p_holm, r.equivalent, r.claimed) for r in table.itertuples()]
    return table


def verdicts(members: pd.DataFrame, rows: pd.DataFrame, clock: str = CLOCKS[0]) -> pd.Series:
    """Each claim's verdict by one clock, by its number; `rows` are `all_contrasts` of the `members`, all on that clock.

    By examples seen, only the claims that contrasts of times decide have a verdict.
    """
    found = {}
    for claim in CLAIMS:
        mine = rows[rows["claim"] == claim.number]
        if claim.unless:
            reached = of_arm(members, claim.share_of or "", "permutation")["reached"]
            decided = "contradicted" if claim.unless(reached) else "supported"
        else:
            decided = claim.settled or claim.decide(mine)
        timed = (mine["decides"] & (mine["column"] == "restricted")).any()
        found[claim.number] = decided if timed or clock != CLOCKS[-1] else ""
    return pd.Series(found, name=clock)
