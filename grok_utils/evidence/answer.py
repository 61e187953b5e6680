"""The evidence in words: the answer, and what is missing. Every number in a sentence is computed here."""

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import in_order
from grok_utils.evidence.claims import NOT_RUN
from grok_utils.evidence.members import STUDIES, Evidence, incomplete
from grok_utils.page.prose import commits, days, listed, named, sample_sizes, signed
from grok_utils.tasks import OPERATIONS


def estimate(row: pd.Series, digits: int = 0) -> str:
    """A contrast's difference with its 95 % interval, and in per cent of the reference's mean."""
    bounds = "no interval" if np.isnan(row["low"]) else f"{signed(row['low'], digits)} to {signed(row['high'], digits)}"
    mean = row["reference_mean"]
    percent = f", {signed(100 * row['difference'] / mean)} %" if row["column"] == "restricted" and mean else ""
    return f"{signed(row['difference'], digits)}{percent} ({bounds})"


# --- what there is -------------------------------------------------------------------------------------------------


def heading(evidence: Evidence) -> str:
    """The page's title, and how many records of how many studies it stands on."""
    s = evidence.studies
    members = len(evidence.members.query("clock == '99 %'"))
    return (
        "# Does growing the batch make a transformer grok sooner? The evidence\n\n"
        f"{s['records'].sum():,} records of {members:,} trained models, from {(s['records'] > 0).sum()} of {len(s)} "
        f"planned studies; trained {days(evidence.metadata)}, commit "
        f"{commits(evidence.metadata)}. "
        f"{missing(evidence.studies) or 'Every planned record is there.'}"
    )


def missing(studies: pd.DataFrame, names: tuple[str, ...] = STUDIES) -> str:
    """Which of the named studies have no or not all records, in words; empty where none."""
    lacking = incomplete(studies, names)
    absent, partly = lacking[lacking["records"] == 0]["study"], lacking[lacking["records"] > 0]
    words = [f"**No records yet** of {named(absent)}."] if len(absent) else []
    begun = [f"`{row.study}` ({row.records:,} of {row.planned:,} records)" for row in partly.itertuples()]
    return " ".join(words + ([f"**Incomplete:** {listed(begun)}."] if begun else []))


def uncommitted(metadata: list[dict[str, Any]]) -> str:
    """What records made with uncommitted changes are worth; empty where there are none."""
    n = sum(bool(m["dirty"]) for m in metadata)
    if not n:
        return ""
    return (
        f"{n:,} of {len(metadata):,} records say *with uncommitted changes*. The copy of the repository beside the "
        "tree had lost its index when they were written, so that git called every file changed; the package was their "
        "commit's, but that is our word, not theirs. `make verify` trains one of a study's records again and compares."
    )


# --- the answer ----------------------------------------------------------------------------------------------------

ANSWERS = {
    "supported": "Yes: growing the batch helps, beyond the dose",
    "contradicted": "No: growing the batch does not help beyond its dose",
    "cannot tell": "Whether growing the batch helps beyond its dose, one cannot tell",
    NOT_RUN: "Whether growing the batch helps beyond its dose is not known yet",
}


def answer(rows: pd.DataFrame, found: pd.Series, dose: pd.DataFrame) -> str:
    """The question's answer: one line, and three sentences that carry it, growth first, then constants, then linear.

    `rows` and `found` as from `claims.all_contrasts` and `claims.verdicts`, `dose` as from `effects.dose_response`.
    """
    sentences = [order_of_sizes(rows), without_growing(dose), against_baseline(rows)]
    return f"**{ANSWERS[found[3]]}.** " + " ".join(s for s in sentences if s) + f"\n\n{verdict_counts(found)}"


def order_of_sizes(rows: pd.DataFrame) -> str:
    """Linear beside the same dose without growth."""
    ours = rows[(rows["claim"] == 3) & (rows["n"] > 0)]
    if ours.empty:
        return ""
    others = {"linear-reversed": "its reverse", "linear-mean": "the constant at its mean"}
    each = [f"against {words}, {outcomes(ours[ours['reference'] == name])}" for name, words in others.items()]
    each.append(f"against five random orders, {outcomes(ours[~ours['decides']])}")
    return f"With the dose held, the growing `linear` is, {'; '.join(each)} ({sample_sizes(ours)} seeds)."


def without_growing(dose: pd.DataFrame) -> str:
    """Which arm is soonest, and how linear does beside the best constant."""
    best, behind = {}, []
    for operation in in_order(dose["operation"], OPERATIONS):
        rows = dose[(dose["operation"] == operation) & (dose["reached"] == dose["n"])].set_index("schedule")
        if rows["constant"].sum() > 1 and "linear" in rows.index:
            best.setdefault(rows["rmst"].idxmin(), []).append(operation)
            constant = rows.loc[rows["constant"], "rmst"].min()
            behind.append(100 * (rows.loc["linear", "rmst"] / constant - 1))
    told = [f"`{arm}` on {named(operations)}" for arm, operations in best.items()]
    return (
        f"The soonest of all arms is {listed(told)}; `linear` needs {signed(min(behind))} to {signed(max(behind))} % "
        f"updates beside the best constant batch ({sample_sizes(dose)})."
        if best
        else ""
    )


def against_baseline(rows: pd.DataFrame) -> str:
    """Linear beside the baseline."""
    ours = rows[(rows["claim"] == 1) & (rows["n"] > 0)]
    if ours.empty:
        return ""
    percent = 100 * ours["difference"] / ours["reference_mean"]
    return (
        f"Beside the constant 512, `linear` is {outcomes(ours)}, by {signed(percent.min())} to "
        f"{signed(percent.max())} % of updates ({sample_sizes(ours)})."
    )


def outcomes(rows: pd.DataFrame) -> str:
    """Such as `sooner on x_plus_y, equivalent on x_div_y`, or counts where an operation has several rows."""
    in_each = rows.assign(outcome=[in_words(row) for _, row in rows.iterrows()])
    told = in_each.groupby("outcome", sort=False)["operation"]
    if rows["operation"].duplicated().any():
        return listed(f"{words} in {len(of)} of {len(rows)} contrasts" for words, of in told)
    return listed(f"{words} on {named(of)}" for words, of in told)


def answer_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The answer in numbers: a row an operation, linear less its reverse, its mean and the baseline."""
    columns = {"linear-reversed": "its reverse", "linear-mean": "the constant at its mean", "baseline": "constant 512"}
    ours = rows[rows["claim"].isin([1, 3]) & rows["reference"].isin(columns) & (rows["n"] > 0)]
    table = []
    for operation in in_order(ours["operation"], OPERATIONS):
        of = ours[ours["operation"] == operation].set_index("reference")
        found = {words: estimate(of.loc[name]) for name, words in columns.items() if name in of.index}
        table.append({"operation": operation} | found)
    return pd.DataFrame(table)


def in_words(row: pd.Series) -> str:
    """A contrast's outcome in words, whatever was claimed of it."""
    if row["verdict"] in ("equivalent", "cannot tell"):
        return "equivalent" if row["verdict"] == "equivalent" else "not to be told apart"
    return "sooner" if row["difference"] < 0 else "later"


def verdict_counts(found: pd.Series) -> str:
    """How many of the claims came out which way."""
    tally = Counter(found)
    order = ["supported", "contradicted", "cannot tell", *sorted({v for v in tally if v.startswith("wrong")}), NOT_RUN]
    told = [f"{tally[v]} {v}" for v in order if tally[v]]
    return f"Of the original's {len(found)} claims: {listed(told)} ([Table](#verdicts))."
