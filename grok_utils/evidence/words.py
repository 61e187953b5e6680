"""The evidence's sections in words, from what there is to what to do. Every number in a sentence is computed here."""

from typing import Any

import pandas as pd

from grok_utils.analysis.crossings import in_order
from grok_utils.analysis.inference import ALPHA
from grok_utils.evidence.answer import CONTROLS, estimate, of_claim, order_of_sizes, span
from grok_utils.evidence.members import CLOCKS, Evidence, incomplete
from grok_utils.page.prose import commits, days, listed, named, p_value, sample_sizes, signed
from grok_utils.store.records import makings
from grok_utils.studies import DEFAULTS
from grok_utils.tasks import OPERATIONS

ADVICE = {
    "supported": "Growing the batch adds to a small start here, beyond what a constant of the same mean gives.",
    "contradicted": "Growing the batch is not shown to buy more than its dose does: a small constant batch is simpler.",
}
UNITS = {"updates": "{:,.0f} updates", "examples": "{:,.0f} examples", "seconds": "{:.1f} s"}


def heading(evidence: Evidence) -> str:
    """The page's title, and how many records of how many studies it stands on."""
    s, made = evidence.studies, makings(evidence.metadata)
    return (
        "# Does growing the batch make a transformer grok sooner? The evidence\n\n"
        f"{s['records'].sum():,} records of {(evidence.members['clock'] == CLOCKS[0]).sum():,} trained models, from "
        f"{(s['records'] > 0).sum()} of {len(s)} planned studies; trained {days(made)}, commit {commits(made)}. "
        f"{missing(s) or 'Every planned record is there.'}"
    )


def missing(studies: pd.DataFrame) -> str:
    """Which of the studies have no or not all records, in words; empty where none."""
    lacking = incomplete(studies)
    absent, partly = lacking[lacking["records"] == 0]["study"], lacking[lacking["records"] > 0]
    words = [f"**No records yet** of {named(absent)}."] if len(absent) else []
    begun = [f"`{row.study}` ({row.records:,} of {row.planned:,} records)" for row in partly.itertuples()]
    return " ".join(words + ([f"**Incomplete:** {listed(begun)}."] if begun else []))


def uncommitted(metadata: list[dict[str, Any]]) -> str:
    """What records made with uncommitted changes are worth; empty where there are none."""
    n = sum(any(made["dirty"] for made in m["made"]) for m in metadata)
    if not n:
        return ""
    return (
        f"{n:,} of {len(metadata):,} records say *with uncommitted changes*. The copy of the repository beside the "
        "tree had lost its index when they were written, so that git called every file changed; the package was their "
        "commit's, but that is our word, not theirs. `make verify` trains one of a study's records again and compares."
    )


def on_the_curve(dose: pd.DataFrame) -> str:
    """Where the changing arms lie beside what the constants give."""
    rows = dose[~dose["constant"] & (dose["reached"] > 0) & dose["low"].notna() & dose["curve"].notna()]
    if rows.empty:
        return "There are not yet arms that change the batch beside constants to compare them with."
    on, sums = (rows[name].between(rows["low"], rows["high"]).sum() for name in ("curve", "added_up"))
    apart = 100 * (rows["rmst"] / rows["added_up"] - 1)
    return (
        f"Of {len(rows)} changing arms and operations, the curve of the constants passes through the 95 % interval of "
        f"{on}. A mean batch size is a coarse dose: a mixture of sizes need not take as long as a constant at its "
        "mean. If instead an update at batch size $B$ takes the part $1/T(B)$ of the way, $T(B)$ the constants' RMST, "
        "the parts add up to a prediction without any effect of growth or order: it lies inside the interval of "
        f"{sums} of {len(rows)}, and the RMST differs from it by {span(apart)} % (median {signed(apart.median())} %). "
        "That prediction is not in the analysis plan; all else here is."
    )


def order_section(rows: pd.DataFrame, found: pd.Series) -> str:
    """Claim 3 in words, with its shuffles."""
    ours, told = of_claim(rows, 3), [order_of_sizes(rows)]
    if ours.empty:
        return "None of the studies of order has records yet."
    for control, words in CONTROLS.items():
        of = ours[ours["reference"] == control]
        each = [f"{estimate(r)}, {p_value(r['p_holm'])}, on `{r['operation']}`" for _, r in of.iterrows()]
        told.append(f"Linear less {words}, in updates: {'; '.join(each)}.")
    return " ".join([*told, f"Claim 3 is therefore: **{found[3]}**."])


def order_beyond_dose(table: pd.DataFrame) -> str:
    """What of the differences between orders their doses explain, from `effects.order_added_up`."""
    told = [
        "Orders of the same sizes use up their dose at different paces, so some difference needs no effect of order. "
        "What the constants add up to, as above, knows of none (nor is it in the analysis plan)."
    ]
    for control, words in ({"linear-shuffled": "the five shuffles"} | CONTROLS).items():
        rows = table[table["reference"].str.startswith(control)]
        if len(rows):
            told.append(
                f"Of linear less {words} it predicts {span(rows['predicted'])} updates, and "
                f"{span(rows['difference'])} were found: the prediction is inside the interval of "
                f"{rows['predicted'].between(rows['low'], rows['high']).sum()} of {len(rows)} contrasts, below it in "
                f"{(rows['predicted'] < rows['low']).sum()}, above it in {(rows['predicted'] > rows['high']).sum()}."
            )
    told.append("Below means that linear is later than its batch sizes explain: that the order itself costs it time.")
    return " ".join(told) if len(table) else ""


def interaction_section(table: pd.DataFrame) -> str:
    """Whether small constants and linear are sooner at every rate and decay."""
    if table.empty:
        return "The study of learning rates and weight decays has no records yet."
    told = []
    for (arm, reference), rows in table[~table["follows"]].groupby(["arm", "reference"], sort=False):
        sure, sooner = rows["p_holm"] < ALPHA, rows["difference"] < 0
        told.append(
            f"`{arm}` is sooner than `{reference}` in {sooner.sum()} of {len(rows)} settings and operations "
            f"({(sure & sooner).sum()} at a corrected p below {ALPHA}; later in "
            f"{(sure & (rows['difference'] > 0)).sum()}), by {span(rows['percent'])} % of its RMST "
            f"({sample_sizes(rows)})."
        )
    return " ".join([*told, following_rates(table)])


def following_rates(table: pd.DataFrame) -> str:
    """The arms whose learning rate follows a batch size."""
    told = []
    for (arm, reference), rows in table[table["follows"]].groupby(["arm", "reference"], sort=False):
        each = [
            f"{signed(r.difference)} ({signed(r.low)} to {signed(r.high)}, {p_value(r.p_holm)}) on `{r.operation}`"
            for r in rows.itertuples()
        ]
        told.append(f"`{arm}` less `{reference}`: {listed(each)} ({sample_sizes(rows)}).")
    return " ".join(told)


def horizon_section(band: pd.DataFrame) -> str:
    """Share of seeds that grok permutation by each update of `band`, from `inference.share_band`."""
    if band.empty:
        return "The study `horizon` has no records yet."
    told = []
    for update, rows in band.groupby("update"):
        each = [
            f"`{r.schedule}` {r.reached} of {r.n} ({100 * r.low:.0f} to {100 * r.high:.0f} %)"
            for r in rows.itertuples()
        ]
        told.append(f"By update {update:,}: {listed(each)}.")
    return " ".join(told) + " In brackets the exact 95 % interval of the share."


def examples_section(differences: pd.DataFrame, left_out: list[str], horizon: int) -> str:
    """The differences by examples seen, from `summaries.paired_differences`, and the arms that are left out."""
    told = [f"The horizon is {horizon:,} examples, what `exponential` sees in its whole run."]
    told += [f"{named(left_out)} end before that and are left out."] if left_out else []
    if len(differences):
        sooner, later, open_ = ((differences["verdict"] == v).sum() for v in ("sooner", "later", "cannot tell"))
        told.append(
            f"Of {len(differences)} comparisons with `baseline`, an arm needs fewer examples in {sooner}, more in "
            f"{later}, and one cannot tell in {open_} ({sample_sizes(differences)}, 95 % intervals, not corrected)."
        )
    return " ".join(told)


def precision_section(table: pd.DataFrame) -> str:
    """What a lower precision does; `table` as from `effects.precision`."""
    told = [
        f"`{precision}` less float32: equivalent in {rows['equivalent'].eq(True).sum()} of {len(rows)} arms and "
        f"operations, differences from {span(rows['percent'])} % ({sample_sizes(rows)})."
        for precision, rows in table.groupby("precision", sort=False)
    ]
    return " ".join(told) or "The study of precision has no records yet."


def stability_section(table: pd.DataFrame) -> str:
    """What arms do after their crossing, from `effects.stability`."""
    rows = table[table["crossed"] > 0]
    if rows.empty:
        return "No member has crossed 99 % yet."
    members, unstable, ended = rows[["crossed", "unstable", "ended_below"]].sum()
    worst = rows.loc[rows["share_below"].idxmax()]
    return (
        f"Of {members:,} members that crossed 99 % and were logged afterwards, {unstable:,} fell back at least once, "
        f"and {ended:,} ended below. The least stable arm is `{worst['schedule']}` on `{worst['operation']}`: "
        f"{100 * worst['share_below']:.1f} % of its later logs are not above 99 % ({worst['crossed']} members), and "
        f"its lowest final accuracy is {worst['final_least']:.3f}."
    )


def advice(found: pd.Series, cost: pd.DataFrame) -> str:
    """What to do, by the verdict of claim 3, and the cheapest arms of each operation; `cost` as from `effects.cost`."""
    told = []
    for operation in in_order(cost["operation"], OPERATIONS):
        rows = cost[(cost["operation"] == operation) & (cost["reached"] == cost["n"])].set_index("schedule")
        if len(rows):
            least = {unit: rows[unit].idxmin() for unit in UNITS if unit in rows}
            arms = dict.fromkeys([*least.values(), *(a for a in ("linear", "baseline") if a in rows.index)])
            spent = {arm: [(arm == a, UNITS[u].format(rows.loc[arm, u])) for u, a in least.items()] for arm in arms}
            each = [f"`{a}` {', '.join(f'**{t}**' if best else t for best, t in of)}" for a, of in spent.items()]
            told.append(f"- `{operation}`: {'; '.join(each)}.")
    before = "\nThe cheapest of the arms of which every seed reached 99 %, beside linear and the baseline:\n"
    unknown = "Whether growing the batch buys anything beyond its dose, these data do not say."
    return "\n".join([ADVICE.get(found[3], unknown), *([before, *told] if told else [])])


def reading(found: pd.Series, interactions: pd.DataFrame) -> str:
    """What the data say to the theory, and what they do not."""
    usual = interactions[["learning_rate", "weight_decay"]].eq([DEFAULTS["learning_rate"], DEFAULTS["weight_decay"]])
    small = interactions[usual.all(axis=1) & (interactions["arm"] == "constant-128")]
    told = []
    if len(small):
        each = [f"{signed(r.percent)} % on `{r.operation}` ({p_value(r.p_holm)})" for r in small.itertuples()]
        fewer = bool(((small["difference"] < 0) & (small["p_holm"] < ALPHA)).any())
        told.append(
            "**What the data say.** At the protocol's learning rate a constant batch of 128 needs, beside one of 512, "
            f"{listed(each)} updates ({sample_sizes(small)}). "
            + (
                "Fewer updates with a smaller batch is what the critical batch size, at tuned rates, does not allow: "
                "here the rate is fixed, and more noise is one reading, a rate too small for 512 another."
                if fewer
                else "That is compatible with the critical batch size, by which a small batch saves no updates."
            )
        )
    if rates := following_rates(interactions):
        told.append(
            "If only the ratio of rate and batch counted, scaling the rate would undo linear's difference from the "
            f"baseline, and a decayed rate would undo it from the other side. {rates}"
        )
    told.append(
        f"That growth matters beyond the dose: {found[3]}. What the data do not say: nothing here measures the "
        "gradient noise, and no arm tells noise from the number of passes over each pair."
    )
    return "\n\n".join(told)
