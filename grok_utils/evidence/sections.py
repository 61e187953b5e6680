"""The evidence's sections in words: dose, order, interactions, horizon, stability, cost, theory."""

import pandas as pd

from grok_utils.analysis.crossings import in_order
from grok_utils.evidence.answer import estimate, order_of_sizes
from grok_utils.evidence.members import CELLS, CLOCKS, RATES
from grok_utils.page.prose import listed, named, p_value, sample_sizes, signed
from grok_utils.tasks import OPERATIONS


def on_the_curve(dose: pd.DataFrame) -> str:
    """Where the changing arms lie beside what the constants give."""
    rows = dose[~dose["constant"] & (dose["reached"] > 0) & dose["low"].notna() & dose["curve"].notna()]
    if rows.empty:
        return "There are not yet arms that change the batch beside constants to compare them with."
    on = rows["curve"].between(rows["low"], rows["high"]).sum()
    sums = rows["added_up"].between(rows["low"], rows["high"]).sum()
    apart = 100 * (rows["rmst"] / rows["added_up"] - 1)
    return (
        f"Of {len(rows)} changing arms and operations, the curve of the constants passes through the 95 % interval of "
        f"{on}. A mean batch size is a coarse dose: a mixture of sizes need not take as long as a constant at its "
        "mean. If instead an update at batch size $B$ takes the part $1/T(B)$ of the way, $T(B)$ the constants' RMST, "
        "the parts add up to a prediction without any effect of growth or order: it lies inside the interval of "
        f"{sums} of {len(rows)}, and the RMST differs from it by {signed(apart.min())} to {signed(apart.max())} % "
        f"(median {signed(apart.median())} %). That prediction is not in the analysis plan; all else here is."
    )


def order_section(rows: pd.DataFrame, found: pd.Series) -> str:
    """Claim 3 in words, with its shuffles."""
    ours = rows[(rows["claim"] == 3) & (rows["n"] > 0)]
    if ours.empty:
        return "None of the studies of order has records yet."
    told = [order_of_sizes(rows)]
    for control, words in {"linear-mean": "its mean", "linear-reversed": "its reverse"}.items():
        of = ours[ours["reference"] == control]
        each = [f"{estimate(r)}, {p_value(r['p_holm'])}, on `{r['operation']}`" for _, r in of.iterrows()]
        told.append(f"Linear less {words}, in updates: {'; '.join(each)}.")
    told.append(f"Claim 3 is therefore: **{found[3]}**.")
    return " ".join(told)


def order_beyond_dose(table: pd.DataFrame) -> str:
    """What of the differences between orders their doses explain, from `effects.order_added_up`."""
    if table.empty:
        return ""
    told = [
        "Orders of the same sizes use up their dose at different paces, so some difference needs no effect of order. "
        "What the constants add up to, as above, knows of none (nor is it in the analysis plan)."
    ]
    kinds = {"the five shuffles": "shuffled", "the reverse": "reversed", "the mean": "mean"}
    for words, kind in kinds.items():
        rows = table[table["reference"].str.contains(kind)]
        if len(rows):
            told.append(
                f"Of linear less {words} it predicts {signed(rows['predicted'].min())} to "
                f"{signed(rows['predicted'].max())} updates, and {signed(rows['difference'].min())} to "
                f"{signed(rows['difference'].max())} were found: the prediction is inside the interval of "
                f"{rows['predicted'].between(rows['low'], rows['high']).sum()} of {len(rows)} contrasts, below it in "
                f"{(rows['predicted'] < rows['low']).sum()}, above it in {(rows['predicted'] > rows['high']).sum()}."
            )
    told.append("Below means that linear is later than its batch sizes explain: that the order itself costs it time.")
    return " ".join(told)


def interaction_section(table: pd.DataFrame) -> str:
    """Whether small constants and linear are sooner at every rate and decay."""
    cells = table[table["study"].isin(CELLS)]
    if cells.empty:
        return "None of the studies of learning rate and weight decay has records yet."
    told = []
    for arm, rows in cells.groupby("arm", sort=False):
        sure = rows["p_holm"] < 0.05
        sooner, later = (sure & (rows["difference"] < 0)).sum(), (sure & (rows["difference"] > 0)).sum()
        told.append(
            f"`{arm}` is sooner than `baseline` in {(rows['difference'] < 0).sum()} of {len(rows)} settings and "
            f"operations ({sooner} at a corrected p below 0.05; later in {later}), by "
            f"{signed(rows['percent'].min())} to {signed(rows['percent'].max())} % of its RMST ({sample_sizes(rows)})."
        )
    return " ".join([*told, following_rates(table)])


def following_rates(table: pd.DataFrame) -> str:
    """The two arms whose learning rate follows a batch size."""
    words = {
        "rate-sqrt-batch": "Linear with its rate scaled by $\\sqrt{B/512}$, less the baseline",
        "rate-mirror": "A constant 512 whose rate falls as $\\sqrt{32/B}$ of linear's batch, less linear",
    }
    told = []
    for study in RATES:
        rows = table[table["study"] == study]
        each = [
            f"{signed(r.difference)} ({signed(r.low)} to {signed(r.high)}, {p_value(r.p_holm)}) on `{r.operation}`"
            for r in rows.itertuples()
        ]
        told += [f"{words[study]}: {listed(each)} (n = {rows['n'].min()})."] if each else []
    return " ".join(told)


def horizon_section(band: pd.DataFrame) -> str:
    """Share of seeds that grok permutation by each update of `band`, from `inference.share_band`."""
    if band.empty:
        return "The study `horizon` has no records yet."
    told = []
    for update, rows in band.groupby("update"):
        each = [
            f"`{r.schedule}` {r.reached} of {r.n} ({percent(r.low)} to {percent(r.high)} %)" for r in rows.itertuples()
        ]
        told.append(f"By update {update:,}: {listed(each)}.")
    return " ".join(told) + " In brackets the exact 95 % interval of the share."


def percent(share: float) -> str:
    """A share in whole per cent."""
    return f"{100 * share:.0f}"


def examples_section(differences: pd.DataFrame, short: dict[str, list[str]], horizon: int) -> str:
    """The differences by examples seen, from `statistics.paired_differences`, and the arms that are left out."""
    left_out = short.get("confirm", [])
    told = [f"The horizon is {horizon:,} examples, what `exponential` sees in its whole run."]
    if left_out:
        told.append(f"{named(left_out)} end before that and are left out.")
    tally = differences["verdict"].value_counts() if len(differences) else {}
    if len(differences):
        told.append(
            f"Of {len(differences)} comparisons with `baseline`, an arm needs fewer examples in "
            f"{tally.get('sooner', 0)}, more in {tally.get('later', 0)}, and one cannot tell in "
            f"{tally.get('cannot tell', 0)} ({sample_sizes(differences)}, 95 % intervals, not corrected)."
        )
    return " ".join(told)


def precision_section(table: pd.DataFrame) -> str:
    """What a lower precision does; `table` as from `effects.precision`."""
    if table.empty:
        return "The studies of precision have no records yet."
    told = []
    for precision, rows in table.groupby("precision", sort=False):
        same = (rows["equivalent"] == True).sum()  # noqa: E712  None: cannot tell
        told.append(
            f"`{precision}` less float32: equivalent in {same} of {len(rows)} arms and operations, differences from "
            f"{signed(rows['percent'].min())} to {signed(rows['percent'].max())} % ({sample_sizes(rows)})."
        )
    return " ".join(told)


def stability_section(table: pd.DataFrame) -> str:
    """What arms do after their crossing, from `effects.stability`."""
    rows = table[table["crossed"] > 0]
    if rows.empty:
        return "No member has crossed 99 % yet."
    members, unstable, ended = rows["crossed"].sum(), rows["unstable"].sum(), rows["ended_below"].sum()
    worst = rows.loc[rows["share_below"].idxmax()]
    return (
        f"Of {members:,} members that crossed 99 % and were logged afterwards, {unstable:,} fell back at least once, "
        f"and {ended:,} ended below. The least stable cell is `{worst['schedule']}` on `{worst['operation']}`: "
        f"{100 * worst['share_below']:.1f} % of its later logs are not above 99 % ({worst['crossed']} members), and "
        f"its lowest final accuracy is {worst['final_least']:.3f}."
    )


def changed_by_clocks(by_clock: pd.DataFrame) -> dict[int, str]:
    """What other clocks make of each claim's verdict, where they change it (see `tables.robustness`)."""
    changed = {}
    for row in by_clock.to_dict("records"):
        other = [f"{row[clock]} ({clock})" for clock in CLOCKS[1:] if row[clock] not in ("", row[CLOCKS[0]])]
        changed |= {row["claim"]: listed(other)} if other else {}
    return changed


def robustness_section(by_clock: pd.DataFrame) -> str:
    """Which verdicts another clock changes."""
    first = by_clock.set_index("claim")[CLOCKS[0]]
    told = [f"claim {k} ({first[k]}) is {words}" for k, words in changed_by_clocks(by_clock).items()]
    return f"Verdicts that another clock changes: {'; '.join(told)}." if told else "No other clock changes a verdict."


ADVICE = {
    "supported": "Growing the batch adds to a small start here, beyond what a constant of the same mean gives.",
    "contradicted": "Growing the batch is not shown to buy more than its dose does: a small constant batch is simpler.",
}


def advice(found: pd.Series, cost: pd.DataFrame) -> str:
    """What to do, by the verdict of claim 3, and the cheapest arms of each operation; `cost` as from `effects.cost`."""
    told = [ADVICE.get(found[3], "Whether growing the batch buys anything beyond its dose, these data do not say.")]
    for operation in in_order(cost["operation"], OPERATIONS):
        rows = cost[(cost["operation"] == operation) & (cost["reached"] == cost["n"])].set_index("schedule")
        if len(rows):
            arms = dict.fromkeys([*(rows[unit].idxmin() for unit in UNITS if unit in rows), "linear", "baseline"])
            told.append(f"- `{operation}`: {'; '.join(spends(rows, arm) for arm in arms if arm in rows.index)}.")
    if len(told) > 1:
        told.insert(1, "\nThe cheapest of the arms of which every seed reached 99 %, beside linear and the baseline:\n")
    return "\n".join(told)


UNITS = {"updates": "{:,.0f} updates", "examples": "{:,.0f} examples", "seconds": "{:.1f} s"}


def spends(rows: pd.DataFrame, arm: str) -> str:
    """An arm's cost in every unit; the least of its operation is bold."""
    each = []
    for unit in filter(UNITS.get, rows):
        told = UNITS[unit].format(rows.loc[arm, unit])
        each.append(f"**{told}**" if rows[unit].idxmin() == arm else told)
    return f"`{arm}` {', '.join(each)}"


def reading(found: pd.Series, interactions: pd.DataFrame) -> str:
    """What the data say to the theory, and what they do not."""
    small = interactions.query("study == 'rate-one' and arm == 'constant-128'")
    told = []
    if len(small):
        each = [f"{signed(r.percent)} % on `{r.operation}` ({p_value(r.p_holm)})" for r in small.itertuples()]
        fewer = bool(((small["difference"] < 0) & (small["p_holm"] < 0.05)).any())
        told.append(
            f"**What the data say.** At the protocol's learning rate a constant batch of 128 needs, beside one of 512, "
            f"{listed(each)} updates (n = {small['n'].min()}). "
            + (
                "Fewer updates with a smaller batch is what the critical batch size, at tuned rates, does not allow: "
                "here the rate is fixed, and more noise is one reading, a rate too small for 512 another."
                if fewer
                else "That is compatible with the critical batch size, by which a small batch saves no updates."
            )
        )
    if len(rates := following_rates(interactions)):
        told.append(
            f"If only the ratio of rate and batch counted, scaling the rate would undo linear's difference from the "
            f"baseline, and a decayed rate would undo it from the other side. {rates}"
        )
    told.append(
        f"That growth matters beyond the dose: {found[3]}. What the data do not say: nothing here measures the "
        "gradient noise, and no arm tells noise from the number of passes over each pair."
    )
    return "\n\n".join(told)
