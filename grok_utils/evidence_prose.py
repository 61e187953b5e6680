"""The evidence in words: the answer, and what is missing. Every number in a sentence is computed here."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import pandas as pd

from grok_utils.claims import NOT_RUN
from grok_utils.evidence import STUDIES, Evidence, incomplete
from grok_utils.prose import sample_sizes
from grok_utils.statistics import in_order
from grok_utils.tasks import OPERATIONS


def signed(value: float, digits: int = 0) -> str:
    """Such as `−1,067` or `+0.25`; `none` where there is no number."""
    return "none" if np.isnan(value) else f"{value:+,.{digits}f}".replace("-", "−")


def listed(things: Iterable[str], last: str = "and") -> str:
    """Such as `a, b and c`."""
    *front, end = list(things)
    return f"{', '.join(front)} {last} {end}" if front else end


def named(names: Iterable[str]) -> str:
    """Such as `a` and `b`, in code marks."""
    return listed(f"`{name}`" for name in names)


def p_value(p: float) -> str:
    """Such as `p = 0.03`, with `< 0.001` for what is smaller."""
    return "no p" if np.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def estimate(row: pd.Series, digits: int = 0) -> str:
    """A contrast's difference with its 95 % interval, and in per cent of the reference's mean."""
    bounds = "no interval" if np.isnan(row["low"]) else f"{signed(row['low'], digits)} to {signed(row['high'], digits)}"
    mean = row["reference_mean"]
    percent = f", {signed(100 * row['difference'] / mean)} %" if row["column"] == "restricted" and mean else ""
    return f"{signed(row['difference'], digits)}{percent} ({bounds})"


# --- what there is -------------------------------------------------------------------------------------------------


def heading(evidence: Evidence) -> str:
    """The page's title, and how many records of how many studies it stands on."""
    s, dates = evidence.studies, sorted({m["started"][:10] for m in evidence.metadata})
    commits = sorted({(m["commit"] or "no commit")[:10] for m in evidence.metadata})
    members = len(evidence.members.query("clock == '99 %'"))
    return (
        "# Does growing the batch make a transformer grok sooner? The evidence\n\n"
        f"{s['records'].sum():,} records of {members:,} trained models, from {(s['records'] > 0).sum()} of {len(s)} "
        f"planned studies; trained {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}, commit {listed(commits)}. "
        f"{missing(evidence.studies) or 'Every planned record is there.'}"
    )


def missing(studies: pd.DataFrame, names: tuple[str, ...] = STUDIES) -> str:
    """Which of the named studies have no or not all records, in words; empty where none."""
    lacking = incomplete(studies, names)
    absent, partly = lacking[lacking["records"] == 0]["study"], lacking[lacking["records"] > 0]
    words = [f"**No records yet** of {named(absent)}."] if len(absent) else []
    begun = [f"`{row.study}` ({row.records:,} of {row.planned:,} records)" for row in partly.itertuples()]
    return " ".join(words + ([f"**Incomplete:** {listed(begun)}."] if begun else []))


# --- the answer ----------------------------------------------------------------------------------------------------

ANSWERS = {
    (
        "supported",
        "supported",
    ): "Yes: a batch that starts small and grows is sooner than a constant 512, and growing is part of why",
    ("supported", "contradicted"): "Sooner than a constant 512, yes; but not by growing",
    ("supported", "cannot tell"): "Sooner than a constant 512, yes; whether growing has a part in it, one cannot tell",
    ("supported", NOT_RUN): "Sooner than a constant 512, yes; what growing has to do with it is not known yet",
    ("contradicted", ""): "No: starting small and growing is not sooner than a constant 512 on every operation",
    ("cannot tell", ""): "One cannot tell",
    (NOT_RUN, ""): "Not known yet: the records that answer it are not complete",
}


def answer(evidence: Evidence, rows: pd.DataFrame, found: pd.Series, dose: pd.DataFrame) -> str:
    """The question's answer: one line, and three sentences that carry it.

    `rows` and `found` as from `claims.all_contrasts` and `claims.verdicts`, `dose` as from `effects.dose_response`.
    """
    line = ANSWERS.get((found[1], found[3])) or ANSWERS[found[1], ""]
    sentences = [against_baseline(rows), without_growing(dose), order_of_sizes(rows)]
    return f"**{line}.** " + " ".join(s for s in sentences if s) + f"\n\n{verdict_counts(found)}"


def against_baseline(rows: pd.DataFrame) -> str:
    """Linear beside the baseline."""
    ours = rows[(rows["claim"] == 1) & (rows["n"] > 0)]
    if ours.empty:
        return ""
    each = [f"{estimate(row)} on `{row['operation']}`" for _, row in ours.iterrows()]
    return (
        "Updates to 99 % validation accuracy of `linear` less those of `baseline`, paired by seed with 95 % intervals "
        f"({sample_sizes(ours)}): {listed(each)}."
    )


def without_growing(dose: pd.DataFrame) -> str:
    """Which arm is soonest, and how constants do that never grow."""
    each = []
    for operation in in_order(dose["operation"], OPERATIONS):
        rows = dose[(dose["operation"] == operation) & (dose["reached"] > 0)].set_index("schedule")
        constants = rows[rows["constant"].astype(bool)]
        if len(constants) > 1 and "linear" in rows.index:
            best = constants["rmst"].idxmin()
            each.append(
                f"`{best}` {rows.loc[best, 'rmst']:,.0f}, `linear` {rows.loc['linear', 'rmst']:,.0f} (`{operation}`)"
            )
    return f"The soonest constant batch beside `linear`, in updates: {'; '.join(each)}." if each else ""


def order_of_sizes(rows: pd.DataFrame) -> str:
    """Linear beside the same dose without growth."""
    ours = rows[(rows["claim"] == 3) & rows["decides"] & (rows["n"] > 0)]
    if ours.empty:
        return ""
    each = []
    for reference, words in {"linear-mean": "the constant at its mean", "linear-reversed": "its reverse"}.items():
        of = ours[ours["reference"] == reference]
        told = [f"{estimate(row)} on `{row['operation']}`, {in_words(row)}" for _, row in of.iterrows()]
        each.append(f"less {words}, {'; '.join(told)}")
    return f"With the dose held, `linear` {'; and '.join(each)} ({sample_sizes(ours)})."


def in_words(row: pd.Series) -> str:
    """A contrast's outcome in words, whatever was claimed of it."""
    outcomes = {"equivalent": "equivalent", "cannot tell": "one cannot tell"}
    told = {-1: "sooner", 1: "later"}[int(np.sign(row["difference"]) or 1)]
    return outcomes.get(row["verdict"], told)


def verdict_counts(found: pd.Series) -> str:
    """How many of the claims came out which way."""
    tally = Counter(found)
    order = ["supported", "contradicted", "cannot tell", *sorted({v for v in tally if v.startswith("wrong")}), NOT_RUN]
    told = [f"{tally[v]} {v}" for v in order if tally[v]]
    return f"Of the original's {len(found)} claims: {listed(told)} ([Table](#verdicts))."


def describe(dose: pd.DataFrame) -> str:
    """The dose–response in plain words, for readers who do not see a figure."""
    each = []
    for operation in in_order(dose["operation"], OPERATIONS):
        rows = dose[dose["operation"] == operation].sort_values("dose")
        each.append(
            f"{operation}: " + ", ".join(f"{r.schedule} {r.rmst:,.0f} at {r.dose:,.0f}" for r in rows.itertuples())
        )
    return f"Restricted mean updates to 99 % at mean batch size. {'; '.join(each)}."


def describe_differences(rows: pd.DataFrame, reference: str) -> str:
    """The intervals of a figure in plain words; `rows` as `evidence_figures.forest` has them."""
    each = []
    for operation in in_order(rows["operation"], OPERATIONS):
        found = rows[rows["operation"] == operation]
        told = [f"{r.label} {r.arm if r.arm != r.label else ''} {signed(r.difference)}" for r in found.itertuples()]
        each.append(f"{operation}: {', '.join(' '.join(t.split()) for t in told)}")
    return f"Differences from {reference} in updates. {'; '.join(each)}."
