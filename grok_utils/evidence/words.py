"""The evidence's sections in words, from what there is to what to do. Every number in a sentence is computed here."""

from typing import Any

import pandas as pd

from grok_utils.analysis.crossings import in_order
from grok_utils.analysis.inference import ALPHA
from grok_utils.evidence.answer import CONTROLS, more_or_fewer, span
from grok_utils.evidence.members import CLOCKS, Evidence
from grok_utils.page.prose import from_to, p_value, sample_sizes, signed, trained
from grok_utils.studies import DEFAULTS

ADVICE = {  # what to do, by the verdict of claim 3
    "supported": "Growing the batch adds to a small start here, beyond what a constant of the same mean gives.",
    "contradicted": "Growing the batch buys no more here than its dose does. A small constant batch is simpler.",
    "cannot tell": "These data do not say whether growing the batch buys anything beyond its dose.",
}


def heading(evidence: Evidence) -> str:
    """The page's title, and how many records of how many studies it stands on."""
    n, records = len(evidence.studies), evidence.studies["records"].sum()
    return (
        "# Does growing the batch make a transformer grok sooner? The evidence\n\n"
        f"{records:,} records of {(evidence.members['clock'] == CLOCKS[0]).sum():,} trained models, from "
        f"{n} of {n} planned studies. {trained(evidence.metadata)} Every planned record is there."
    )


def uncommitted(metadata: list[dict[str, Any]]) -> str:
    """What records made with uncommitted changes are worth; empty where there are none."""
    n = sum(any(made["dirty"] for made in m["made"]) for m in metadata)
    if not n:
        return ""
    return (
        f"{n:,} of {len(metadata):,} records say *with uncommitted changes*. When they were written, the copy of the "
        "repository beside the tree had lost its index, and git called every file changed. The package was that of "
        "their commit, but that is our word, not theirs. `make verify` trains one of a study's records again and "
        "compares."
    )


def on_the_curve(dose: pd.DataFrame) -> str:
    """Where the changing arms lie beside what the constants give."""
    rows = dose[~dose["constant"] & (dose["reached"] > 0) & dose["low"].notna() & dose["curve"].notna()]
    on, sums = (rows[name].between(rows["low"], rows["high"]).sum() for name in ("curve", "added_up"))
    apart = 100 * (rows["rmst"] / rows["added_up"] - 1)
    return (
        f"There are {len(rows)} changing arms and operations. The curve of the constants passes through the 95 % "
        f"interval of {on}. The constants added up lie inside the interval of {sums}. The RMST differs from them by "
        f"{span(apart)} % (median {signed(apart.median())} %)."
    )


def order_explained(table: pd.DataFrame) -> pd.DataFrame:
    """What of linear less its controls the doses explain, from `effects.order_added_up`, a row a control: control,
    contrasts, predicted and found (their spans), and in how many contrasts the prediction is inside, below or above
    the interval."""
    rows = []
    for control, words in ({"linear-shuffled": "the five shuffles"} | CONTROLS).items():
        of = table[table["reference"].str.startswith(control)]
        row = {"control": words, "contrasts": len(of), "predicted": span(of["predicted"])}
        row |= {"found": span(of["difference"]), "inside": of["predicted"].between(of["low"], of["high"]).sum()}
        row |= {"below": (of["predicted"] < of["low"]).sum(), "above": (of["predicted"] > of["high"]).sum()}
        rows.append(row)
    return pd.DataFrame(rows)


def interaction_section(table: pd.DataFrame) -> str:
    """Whether small constants and linear are sooner at every rate and decay; then arms whose rate follows a batch."""
    told = []
    for (arm, reference), rows in table[~table["follows"].astype(bool)].groupby(["arm", "reference"], sort=False):
        sure, sooner = rows["p_holm"] < ALPHA, rows["difference"] < 0
        told.append(
            f"- `{arm}` is sooner than `{reference}` in {sooner.sum()} of {len(rows)} settings and operations. At a "
            f"corrected p below {ALPHA} it is sooner in {(sure & sooner).sum()} and later in "
            f"{(sure & (rows['difference'] > 0)).sum()}. It differs by {span(rows['percent'])} % of the reference's "
            f"RMST ({sample_sizes(rows)})."
        )
    told += [
        f"- `{arm}` needs {more_or_fewer(rows['difference'])} updates than `{reference}` ({sample_sizes(rows)}, "
        f"corrected {p_value(rows['p_holm'].max())} at most)."
        for (arm, reference), rows in table[table["follows"].astype(bool)].groupby(["arm", "reference"], sort=False)
    ]
    return "\n".join(told)


def horizon_table(band: pd.DataFrame) -> pd.DataFrame:
    """How many seeds grok permutation by each update of `band`, from `inference.share_band`: a row an arm, a column an
    update, each with the exact 95 % interval of the share."""
    told = [f"{r.reached} of {r.n} ({100 * r.low:.0f} to {100 * r.high:.0f} %)" for r in band.itertuples()]
    shares = band.assign(told=told).pivot_table("told", "schedule", "update", aggfunc="first")
    return shares.loc[in_order(shares.index)].rename(columns="by {:,}".format).reset_index(names="arm")


def reading(interactions: pd.DataFrame) -> str:
    """What the data say to the theory of the critical batch size."""
    usual = interactions[["learning_rate", "weight_decay"]].eq([DEFAULTS["learning_rate"], DEFAULTS["weight_decay"]])
    small = interactions[usual.all(axis=1) & (interactions["arm"] == "constant-128")]
    said = "That agrees with the critical batch size, by which a small batch saves no updates."
    if ((small["difference"] < 0) & (small["p_holm"] < ALPHA)).any():
        said = (
            "At tuned rates the critical batch size does not allow that. Here the rate is fixed. So one reading is "
            "that noise helps, and another that the rate is too small for 512."
        )
    return (
        "**What the data say.** At the original's rate and decay a constant batch of 128 needs "
        f"{more_or_fewer(small['percent'], ' %')} updates than one of 512 ({sample_sizes(small)}, corrected p "
        f"{from_to(small['p_holm'], '{:.2g}')}). {said}"
    )
