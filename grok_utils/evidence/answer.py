"""The answer and the verdicts, in sentences and in tables. Every number in them is computed here."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import by_operation, in_order
from grok_utils.analysis.intervals import share_interval
from grok_utils.analysis.reported import REPORTED_SEEDS, reported_mean
from grok_utils.analysis.summaries import RMST
from grok_utils.evidence.claims import CLAIMS, all_contrasts, verdicts
from grok_utils.evidence.members import CLOCKS, of_arm
from grok_utils.evidence.rules import Claim
from grok_utils.page.prose import from_to, listed, on_operations, p_value, sample_sizes, signed
from grok_utils.studies import DEFAULTS
from grok_utils.tasks import OPERATIONS, written

FEW = 6  # contrasts that are told one by one; of more, how many came out which way
METRIC = {"restricted": RMST, "final_accuracy": "final_val_acc"}
CONTROLS = {"linear-reversed": "its reverse", "linear-mean": "the constant at its mean"}  # of linear's dose
BASELINE = f"the constant {DEFAULTS['batch_size']}"
DOSE = "its mean batch size (its *dose*)"
ANSWERS = {
    "supported": f"Yes: growing the batch helps more than {DOSE} explains",
    "contradicted": f"No: growing the batch helps no more than {DOSE} explains",
    "cannot tell": f"These data do not say whether growing the batch helps more than {DOSE} explains",
}


def estimate(row: pd.Series) -> str:
    """A contrast's difference with its 95 % interval, and in per cent of the reference's mean."""
    digits = 0 if row["column"] == "restricted" else 3
    bounds = "no interval" if np.isnan(row["low"]) else f"{signed(row['low'], digits)} to {signed(row['high'], digits)}"
    percent = f", {signed(row['percent'])} %" if row["column"] == "restricted" else ""
    return f"{signed(row['difference'], digits)}{percent} ({bounds})"


def span(values: pd.Series) -> str:
    """Such as `−20 to +5`."""
    return f"{signed(values.min())} to {signed(values.max())}"


# --- the answer -------------------------------------------------------------------------------------------------------


def answer(rows: pd.DataFrame, found: pd.Series, dose: pd.DataFrame) -> str:
    """The question's answer: one line, and what carries it, growth first, then constants, then linear.

    `rows` and `found` as from `claims.all_contrasts` and `claims.verdicts`, `dose` as from `effects.dose_response`.
    """
    same_dose = listed([*CONTROLS.values(), "random orders of its batch sizes"])
    beside, baseline = (rows[rows["claim"] == number] for number in (3, 1))
    told = [sides(beside, same_dose), without_growing(dose), sides(baseline, BASELINE)]
    told.append(f"Its mean differs by {span(baseline['percent'])} %.")
    return f"**{ANSWERS[found[3]]}.** {' '.join(filter(None, told))}\n\n{verdict_counts(found)}"


def without_growing(dose: pd.DataFrame) -> str:
    """Which arm is soonest, and how linear does beside the best constant."""
    best, behind = {}, []
    for operation, rows in by_operation(dose[dose["reached"] == dose["n"]]):
        rows = rows.set_index("schedule")
        if rows["constant"].sum() > 1 and "linear" in rows.index:
            best[operation] = f"`{rows['rmst'].idxmin()}`"
            behind.append(100 * (rows.loc["linear", "rmst"] / rows.loc[rows["constant"], "rmst"].min() - 1))
    if not best:
        return ""
    needs = f"`linear` needs {more_or_fewer(pd.Series(behind), ' %')} updates than the best constant batch"
    *others, last = on_operations(best)  # clauses with an `and` of their own
    soonest = f"{', '.join(others)}, and {last}" if others else last
    return f"The soonest of all arms is {soonest} ({sample_sizes(dose)}). {needs}."


def outcomes(rows: pd.DataFrame) -> pd.Series:
    """What linear is in each of these contrasts: sooner, later, equivalent, or one cannot tell."""
    sides = rows["difference"].lt(0).map({True: "sooner", False: "later"})
    return rows["verdict"].where(rows["verdict"].isin(["equivalent", "cannot tell"]), sides)


def sides(rows: pd.DataFrame, others: str) -> str:
    """In how many of these contrasts, which are with `others`, linear is sooner, and in how many later."""
    n = Counter(outcomes(rows))
    told = " and ".join(f"{side} in {n[side] or 'none'}" for side in ("sooner", "later"))
    return f"Of {len(rows)} contrasts of `linear` with {others}, it is {told} ({sample_sizes(rows)} seeds)."


def more_or_fewer(differences: pd.Series, unit: str = "") -> str:
    """Such as `9 to 20 % more`; of differences below 0 `9 to 17 % fewer`, of both `−5 to +3 % more or fewer`."""
    if differences.min() < 0 < differences.max():
        return f"{span(differences)}{unit} more or fewer"
    sizes = from_to(differences.abs().round(), "{:,.0f}")
    return f"{sizes}{unit} {'fewer' if differences.max() <= 0 else 'more'}"


def verdict_counts(found: pd.Series) -> str:
    """How many of the claims came out which way."""
    tally, theirs = Counter(found), {"cannot tell": "open (*cannot tell*)"}
    theirs |= {v: v.replace("its own", "their own") for v, n in tally.items() if n > 1 and v.startswith("wrong")}
    order = ["supported", "contradicted", "cannot tell", *sorted({v for v in tally if v.startswith("wrong")})]
    told = [f"{tally[v]} {'is' if tally[v] == 1 else 'are'} {theirs.get(v, v)}" for v in order if tally[v]]
    return f"Of the original's {len(found)} claims, {listed(told)} ([Table](#verdicts))."


def protocol_alone(interactions: pd.DataFrame) -> str:
    """For which rate and decay the answer holds, and how the constant batch fares at others; see `by_rate_and_decay`.

    `interactions` as from `effects.interactions`.
    """
    rate, decay = DEFAULTS["learning_rate"], DEFAULTS["weight_decay"]
    of = by_rate_and_decay(interactions).set_index(["learning_rate", "weight_decay"])
    usual, *twice = ((f"{r:g}", f"{d:g}") for r, d in ((rate, decay), (2 * rate, decay), (rate, 2 * decay)))
    parts = 100 * of.loc[twice] / of.loc[usual]
    return (
        f"**This holds at the original's learning rate {rate:g} and weight decay {decay:g} alone.** "
        f"A constant {DEFAULTS['batch_size']} at twice the rate or twice the decay needs only "
        f"{parts.min(axis=None):.0f} to {parts.max(axis=None):.0f} % of the updates "
        f"({sample_sizes(interactions)}, [Table](#untuned)). So the original may have seen an untuned rate and "
        "decay rather than a good batch size."
    )


def by_rate_and_decay(interactions: pd.DataFrame) -> pd.DataFrame:
    """RMST of the baseline, a row a learning_rate and weight_decay, in all of their digits, a column an operation."""
    ours = interactions[(interactions["reference"] == "baseline") & ~interactions["follows"].astype(bool)]
    table = ours.pivot_table("reference_mean", ["learning_rate", "weight_decay"], "operation")
    table = table[in_order(table, OPERATIONS)].reset_index()
    return table.assign(**table[["learning_rate", "weight_decay"]].map("{:g}".format))


def answer_table(rows: pd.DataFrame) -> pd.DataFrame:
    """The answer in numbers: a row an operation, linear less its reverse, its mean and the baseline, and after each
    what linear is there, as `outcomes` has it."""
    columns = CONTROLS | {"baseline": BASELINE}
    ours = rows[rows["claim"].isin([1, 3]) & rows["reference"].isin(columns)]
    ours = ours.assign(words=[estimate(row) for _, row in ours.iterrows()], verdict=outcomes(ours))
    table = pd.DataFrame({"operation": in_order(ours["operation"], OPERATIONS)})
    for reference, words in columns.items():
        told = ours[ours["reference"] == reference].set_index("operation")[["words", "verdict"]]
        table = table.join(told.set_axis([words, f"{words}: verdict"], axis="columns"), on="operation")
    return table


# --- the verdicts -----------------------------------------------------------------------------------------------------


def verdict_table(members: pd.DataFrame, rows: pd.DataFrame, by_clock: pd.DataFrame) -> pd.DataFrame:
    """A row a claim: claim, text, reported, ours, n, p (Holm-adjusted), verdict, other_clocks (that change it).

    `members` and `rows` are its members and contrasts on the first clock, `by_clock` its verdicts by `robustness`.
    """
    found, table = by_clock.set_index("claim"), []
    for claim in CLAIMS:
        mine = rows[(rows["claim"] == claim.number) & rows["decides"]]
        share_of = of_arm(members, claim.share_of, "permutation") if claim.share_of else None
        told = {"claim": claim.number, "text": claim.text, "reported": reported_words(claim, mine)}
        first, *others = found.loc[claim.number, list(CLOCKS)]
        other = [f"{v} ({clock})" for clock, v in zip(CLOCKS[1:], others, strict=True) if v not in ("", first)]
        told |= our_words(claim, mine, share_of) | {"verdict": first}
        table.append(told | {"other_clocks": listed(other) if other else "–"})
    return pd.DataFrame(table)


def as_claimed(hits: Sequence[bool]) -> str:
    """How many of many contrasts came out as claimed."""
    return f"as claimed in {sum(hits)} of {len(hits)} contrasts"


def our_words(claim: Claim, rows: pd.DataFrame, share_of: pd.DataFrame | None) -> dict[str, str]:
    """ours: the estimates with their intervals, a contrast a line, or of many in one; so p; n: pairs of each, or seeds.

    `rows` are the contrasts that decide it, `share_of` the members whose share it speaks of.
    """
    of_pairs = len(rows[["arm", "reference"]].drop_duplicates()) > 1  # a label says what not all of them share
    labels = (rows["arm"] + " less " + rows["reference"] + " on " if of_pairs else "") + rows["operation"].map(written)
    told = [f"{name}: {estimate(row)}" for name, (_, row) in zip(labels, rows.iterrows(), strict=True)]
    n = list(rows["n"])
    p = [p_value(x).removeprefix("p ").removeprefix("= ") for x in rows["p_holm"]]
    if len(rows) > FEW:
        told = [as_claimed(rows["verdict"] == "supported")]
        p = [f"{p[rows['p_holm'].argmin()]} to {p[rows['p_holm'].argmax()]}"]
    if share_of is not None:
        n, p = n or [len(share_of)], ["–", *p]
        low, high = share_interval(k := int(share_of["reached"].sum()), len(share_of))
        told.insert(0, f"{k} of {len(share_of)} seeds reach 99 % ({100 * low:.0f} to {100 * high:.0f} %)")
    told += [claim.formula] if claim.formula else []
    return {"ours": "\n".join(told), "n": from_to(n, "{:.0f}") if n else "–", "p": "\n".join(p) or "–"}


def reported_words(claim: Claim, rows: pd.DataFrame) -> str:
    """What the original's own means say of the claim's contrasts, line by line as `our_words`."""
    if claim.formula:
        return "the formula"
    if claim.share_of and rows.empty:
        return f"{reported_mean(claim.share_of, 'permutation', RMST):,.0f} updates, the mean of {REPORTED_SEEDS} seeds"
    told, hits = ["–"] * (claim.share_of is not None), []
    for _, row in rows.iterrows():
        ours, theirs = (reported_mean(row[a], row["operation"], METRIC[row["column"]]) for a in ("arm", "reference"))
        words = "–"
        if not np.isnan(ours - theirs):
            hits.append(np.sign(ours - theirs) == row["claimed"])
            words = f"{ours:.3f} against {theirs:.3f}"
            if row["column"] == "restricted":
                words = f"{signed(ours - theirs)}, {signed(100 * (ours / theirs - 1))} %"
        told.append(words)
    return "not tested" if not hits else as_claimed(hits) if len(hits) > FEW else "\n".join(told)


def robustness(of_clock: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Each claim's verdict by every clock, from `Evidence.members` on each: claim, text, and a column a clock."""
    found = {clock: verdicts(of_clock[clock], all_contrasts(of_clock[clock]), clock).to_numpy() for clock in CLOCKS}
    return pd.DataFrame({"claim": [c.number for c in CLAIMS], "text": [c.text for c in CLAIMS]} | found)
