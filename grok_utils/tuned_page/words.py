"""The page's heading, its advice and what the theory makes of it. Every number in a sentence is computed here."""

from pathlib import Path

import pandas as pd

from grok_utils.evidence.effects import COSTS, with_seconds
from grok_utils.page.prose import from_to, listed, trained
from grok_utils.studies import DEFAULTS
from grok_utils.tasks import written
from grok_utils.tuned.choices import ARM, POINT
from grok_utils.tuned.decisions import BEATS, everywhere, groks
from grok_utils.tuned_page.answer import SETTINGS, USUAL, Decided, faster, soonest
from grok_utils.tuned_page.reading import Tuned


def heading(t: Tuned) -> str:
    """The page's title, and how many records of how many studies it stands on."""
    told = f"{t.studies['records'].sum():,} records of {len(t.studies)} studies. {trained(t.metadata)}"
    title = "# Does changing the batch size make a transformer grok sooner, once rate and decay are tuned for each?"
    return f"{title}\n\n{told}"


def prices(t: Tuned, points: pd.DataFrame, outcome: str, bench: Path) -> pd.DataFrame:
    """What an arm spends until it touches or keeps 99 %, tuned, from `answer.points` by that outcome: operation,
    schedule, kind, n, reached, learning_rate, weight_decay, and updates, examples and seconds, means over seeds;
    seconds as in `effects.with_seconds`."""
    tuned = points[points["setting"] == SETTINGS[1]].rename(columns={"rmst": "updates"}).assign(outcome=outcome)
    tuned = tuned.merge(everywhere(t.chosen)[[*ARM, *POINT]])
    return with_seconds(tuned[["operation", "schedule", "kind", "n", "reached", *POINT, *COSTS[:2]]], bench)


def advice(points: pd.DataFrame, kept: pd.DataFrame, decided: Decided, steps: pd.DataFrame) -> str:
    """What to set, and in what order; `points` and `kept` of `answer.points` by either outcome."""
    usual, best = points[points["schedule"] == USUAL], soonest(points).query("constant")
    usual_rmst, best_rmst = (of.pivot_table("rmst", "operation", "setting") for of in (usual, best))
    gains = (usual_rmst / best_rmst).dropna()
    by_batch, after = (from_to(gains[setting], "{:.1f}") for setting in SETTINGS)
    touches, keeps = (from_to(faster(table), "{:.1f}") for table in (points, kept))
    items = [
        f"**Tune learning rate and weight decay first**, up to the edge of stability. At a batch of "
        f"{DEFAULTS['batch_size']} that makes training {touches} times as fast to touch 99 %, and {keeps} times to "
        f"keep it, each at its own cell ([Table](#chosen)). At the "
        f"original's rate and decay the best batch size makes it {by_batch} times as fast.",
        f"**Then choose the batch size**, and tune again: the soonest constant is {after} times as "
        f"fast as a tuned {DEFAULTS['batch_size']}. {critical(steps)}",
        schedule_advice(decided),
    ]
    return "\n".join(f"{i}. {item}" for i, item in enumerate(items, start=1))


def critical(steps: pd.DataFrame) -> str:
    """Beyond which batch size updates hardly fall."""
    of = steps[(steps["stage"] == steps["stage"].iloc[0]) & (steps["coefficient"] == "B_c")].set_index("form")
    usual, free = (from_to(of.loc[[form], "estimate"], "{:,.0f}") for form in ("hyperbola", "power"))
    return (
        f"A larger batch saves updates and costs examples. $B_c$, about which it begins to cost more than it saves, is "
        f"{usual} if $γ$ is 1, and {free} where $γ$ is fitted too ([Table](#steps))."
    )


def schedule_advice(decided: Decided) -> str:
    """Whether a schedule of the batch size is worth its trouble."""
    sooner = groks(decided.contrasts).query("family != 'constants' and said == 'groks sooner'")
    if len(sooner):
        names = [f"`{r.schedule}` on {written(r.operation)}" for r in sooner.itertuples()]
        return f"**Then a schedule of the batch size**, if updates are what counts: {listed(names)} groks sooner."
    some = decided.beaten[decided.beaten["said"] != ""]
    both = some[some["said"].str.startswith(BEATS)]
    if (both["way"] == "sooner").any():
        return "**Then a schedule of the batch size**: some need fewer updates than every constant ([Table](#beaten))."
    if len(both):
        return "**A schedule of the batch size** saves no updates beside the soonest constant. Some save examples."
    leave = "**Leave the batch size constant**: no schedule"
    if some.empty:
        return f"{leave} that was tried is worth its trouble."
    if (some["kind"] == "shrinking").all():
        return (
            f"{leave} beats the constants by both outcomes. Some that shrink the batch do by one, at an operation "
            "([Table](#beaten)). None that grows it does."
        )
    return f"{leave} beats the constants by both outcomes, though some do by one ([Table](#beaten))."


def theory(cells: pd.DataFrame, fits: pd.DataFrame) -> str:
    """What our numbers say to the papers on the timescale and on small batches."""
    told = []
    if len(fits):
        told.append(
            f"Our exponent of rate × decay is {from_to(fits['product'], '{:.2f}').replace('-', '−')} where a time "
            "that is a multiple of τ, as the law of the delay above has it, would give −1: "
            f"the intervals hold −1 in {int(((fits['product_low'] <= -1) & (fits['product_high'] >= -1)).sum())} of "
            f"{len(fits)} fits."
        )
    if len(cells):
        share = cells.groupby("batch")["all_reach"].mean()
        small, large = share.index.min(), share.index.max()
        words = "are the robust ones here, too" if share[small] > share[large] else "are not the robust ones here"
        told.append(
            f"Small batches {words}. All seeds reach 99 % in {100 * share[small]:.0f} % of the cells tried at a batch "
            f"of {small:,}, and in {100 * share[large]:.0f} % at {large:,}."
        )
    return " ".join(told)
