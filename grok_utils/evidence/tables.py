"""The evidence's tables: the fourteen verdicts, every contrast, and the verdicts by other clocks."""

import numpy as np
import pandas as pd

from grok_utils.analysis.intervals import share_interval
from grok_utils.analysis.reported import REPORTED_SEEDS, reported_mean
from grok_utils.analysis.summaries import RMST
from grok_utils.evidence.answer import estimate
from grok_utils.evidence.claims import CLAIMS, all_contrasts, growth, logarithmic_is_above, verdicts
from grok_utils.evidence.members import CLOCKS, Evidence
from grok_utils.evidence.rules import Claim, cell
from grok_utils.evidence.sections import changed_by_clocks
from grok_utils.page.prose import p_value, signed

FEW = 6  # contrasts that are told one by one; of more, how many came out which way
METRIC = {"restricted": RMST, "final_accuracy": "final_val_acc"}


def verdict_table(evidence: Evidence, rows: pd.DataFrame, by_clock: pd.DataFrame) -> pd.DataFrame:
    """A row a claim: claim, text, reported, ours, n, p (Holm-adjusted), verdict, other_clocks (that change it).

    `rows` are its contrasts, and `by_clock` its verdicts as from `robustness`.
    """
    found, changed = by_clock.set_index("claim")[CLOCKS[0]], changed_by_clocks(by_clock)
    members = evidence.members[evidence.members["clock"] == CLOCKS[0]]
    table = []
    for claim in CLAIMS:
        mine = rows[(rows["claim"] == claim.number) & rows["decides"]]
        told = {"claim": claim.number, "text": claim.text, "reported": reported_words(claim, mine)}
        told |= {"ours": our_words(claim, mine, members), "n": sizes(claim, mine, members)}
        told |= {"p": adjusted_p(claim, mine), "verdict": found[claim.number]}
        table.append(told | {"other_clocks": changed.get(claim.number, "–")})
    return pd.DataFrame(table)


def label(row: pd.Series, rows: pd.DataFrame) -> str:
    """What a contrast is, as far as the claim's other contrasts do not share it."""
    same = rows[["arm", "reference"]].drop_duplicates().shape[0] == 1
    return row["operation"] if same else f"{row['arm']} − {row['reference']} on {row['operation']}"


def our_words(claim: Claim, rows: pd.DataFrame, members: pd.DataFrame) -> str:
    """Our estimates with their intervals; of many, how many came out which way."""
    told = []
    if claim.number in FORMULA:
        told.append(FORMULA[claim.number]())
    if claim.share_of and len(at := cell(members, claim.share_of, "permutation")):
        k, n = int(at["reached"].sum()), len(at)
        low, high = share_interval(k, n)
        told.append(f"{k} of {n} seeds reach 99 % ({100 * low:.0f} to {100 * high:.0f} %)")
    known = rows[rows["n"] > 0]
    if len(known) > FEW:
        told.append(f"as claimed in {(known['verdict'] == 'supported').sum()} of {len(known)} contrasts")
    elif len(known):
        digits = {"final_accuracy": 3}
        told += [f"{label(row, rows)}: {estimate(row, digits.get(row['column'], 0))}" for _, row in known.iterrows()]
    return "\n".join(told) or "–"


def reported_words(claim: Claim, rows: pd.DataFrame) -> str:
    """What the original's own means say of the claim's contrasts, line by line as `our_words` once all are known."""
    if claim.number in FORMULA:
        return "the formula"
    if claim.share_of and rows.empty:
        mean = reported_mean(claim.share_of, "permutation", RMST)
        return f"{mean:,.0f} updates, the mean of {REPORTED_SEEDS} seeds"
    told, tested, hits = ["–"] * (claim.share_of is not None), 0, 0
    for _, row in rows.iterrows():
        ours, theirs = (reported_mean(row[a], row["operation"], METRIC[row["column"]]) for a in ("arm", "reference"))
        words = f"{ours:.3f} against {theirs:.3f}"
        if row["column"] == "restricted":
            words = f"{signed(ours - theirs)}, {signed(100 * (ours / theirs - 1))} %"
        known = not np.isnan(ours - theirs)
        told.append(("" if (rows["n"] > 0).all() else f"{label(row, rows)}: ") + (words if known else "–"))
        tested, hits = tested + known, hits + (np.sign(ours - theirs) == row["claimed"])
    if not tested:
        return "not tested"
    return f"as claimed in {hits} of {tested} contrasts" if tested > FEW else "\n".join(told)


def convexity() -> str:
    """How fast exponential grows at its beginning and at its end."""
    steps = growth("exponential")
    return f"its batch grows by {steps[0]:.2f} in the second block and by {steps[-1]:.2f} in the last"


def logarithmic_above() -> str:
    """In how many blocks logarithmic is above both others."""
    above = logarithmic_is_above()
    return f"logarithmic is above linear and exponential in {above.sum()} of {len(above)} blocks before the last"


FORMULA = {7: convexity, 8: logarithmic_above}


def sizes(claim: Claim, rows: pd.DataFrame, members: pd.DataFrame) -> str:
    """Pairs of the claim's contrasts, or seeds of its share."""
    n = set(rows["n"])
    if rows.empty and claim.share_of:
        n = {len(cell(members, claim.share_of, "permutation"))}
    return " to ".join(f"{k:.0f}" for k in sorted({min(n), max(n)})) if n else "–"


def adjusted_p(claim: Claim, rows: pd.DataFrame) -> str:
    """The adjusted p of each contrast, in the lines of `our_words`; of many, the smallest and the largest."""
    p = [p_value(x).removeprefix("p ").removeprefix("= ") for x in rows["p_holm"].dropna()]
    if len(p) > FEW:
        return f"{p[rows['p_holm'].argmin()]} to {p[rows['p_holm'].argmax()]}"
    return "\n".join(["–"] * (claim.share_of is not None or not p) + p)


def robustness(evidence: Evidence, rows: pd.DataFrame) -> pd.DataFrame:
    """Each claim's verdict by every clock: claim, text, and a column a clock; `rows` are the contrasts on the first."""
    table = pd.DataFrame({"claim": [c.number for c in CLAIMS], "text": [c.text for c in CLAIMS]})
    for clock in CLOCKS:
        if clock != CLOCKS[0]:
            rows = all_contrasts(evidence.members[evidence.members["clock"] == clock])
        table[clock] = verdicts(evidence, rows, clock).to_numpy()
    return table


def studies_table(evidence: Evidence) -> pd.DataFrame:
    """The studies: study, what it is, seeds, records, planned."""
    return evidence.studies.rename(columns={"title": "what it is"})
