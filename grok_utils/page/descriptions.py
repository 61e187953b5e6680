"""What each figure shows, in words for readers who do not see it: first its axes, then what is to be seen on them."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import THRESHOLD, in_order
from grok_utils.analysis.summaries import over_two_settings
from grok_utils.tasks import OPERATIONS

PANELS = "a panel for each operation, a line for each arm"
ROWS = "a panel for each operation, a row for each arm"


def in_each(frame: pd.DataFrame, say: Callable[[pd.DataFrame], str]) -> str:
    """What `say` says of each operation's rows: `on x_plus_y …; on x_div_y …`."""
    told = [f"on {name} {say(frame[frame['operation'] == name])}" for name in in_order(frame["operation"], OPERATIONS)]
    return f"{'; '.join(told)}."


def extremes(values: pd.Series, form: str = "{:,.0f}") -> str:
    """The least and the greatest of `values`, whose index names them: `from 2,100 (linear) to 2,900 (baseline)`."""
    known, told = values[np.isfinite(values.astype(float))], []
    if known.empty:
        return "without a finite value"
    for value in dict.fromkeys((known.min(), known.max())):
        first, *others = known.index[known == value]
        who = "all" if others and len(others) + 1 == len(known) else f"{first}{' and others' if others else ''}"
        told.append(f"{form.format(value).replace('-', '−').replace('%', ' %')} ({who})")
    return f"from {' to '.join(told)}" if len(told) > 1 else told[0]


def of_cells(table: pd.DataFrame, column: str, form: str = "{:,.0f}") -> str:
    """The extremes of a column, with an operation and an arm a row, on each operation."""
    return in_each(table, lambda rows: extremes(rows.set_index("schedule")[column], form))


def schedules(sizes: Mapping[str, np.ndarray]) -> str:
    """Of `figures.schedules`."""
    told = []
    for arm, size in sizes.items():
        steps, ends = np.diff(size), f"from {size[0]:,} to {size[-1]:,}"
        if (steps == 0).all():
            told.append(f"{arm} stays at {size[0]:,}")
        elif (steps >= 0).all() or (steps <= 0).all():
            told.append(f"{arm} {'grows' if size[-1] > size[0] else 'shrinks'} {ends}")
        else:
            told.append(f"{arm} varies between {size.min():,} and {size.max():,}")
    return f"Line chart of batch size against update, a line for each arm: {', '.join(told)}."


def learning_curves(frame: pd.DataFrame, against: str = "update") -> str:
    """Of `figures.learning_curves`: where the median over seeds first exceeds 99 %."""
    axis = against.replace("_", " ")

    def say(rows: pd.DataFrame) -> str:
        median = rows.groupby(["schedule", against])["val_accuracy"].median().reset_index()
        first = median[median["val_accuracy"] > THRESHOLD].groupby("schedule")[against].min()
        never = [arm for arm in in_order(rows["schedule"]) if arm not in first]
        told = [extremes(first)] if len(first) else []
        return ", ".join(told + ([f"never ({', '.join(never)})"] if never else []))

    return (
        f"Line charts of validation accuracy against {axis}, {PANELS}. The median over seeds exceeds 99 % at "
        f"these {'updates' if against == 'update' else axis}: {in_each(frame, say)}"
    )


def loss_curves(frame: pd.DataFrame) -> str:
    """Of `figures.loss_curves`: the highest median over seeds, and that at the end."""

    def say(rows: pd.DataFrame) -> str:
        median = rows.groupby(["update", "schedule"])["val_loss"].median()
        highest = f"up to {median[np.isfinite(median)].max():.2g}, " if np.isfinite(median).any() else ""
        return f"{highest}at the end {extremes(median.loc[rows['update'].max()], '{:.2g}')}"

    return (
        f"Line charts of validation loss, on a logarithmic scale, against update, {PANELS}. The median over "
        f"seeds: {in_each(frame, say)}"
    )


def measure(course: pd.DataFrame, column: str) -> str:
    """Of `figures.measure`, from `measured.course`: the means over seeds at the first point and at the last."""

    def say(rows: pd.DataFrame) -> str:
        means = rows.groupby(["update", "schedule"])[column].mean()
        first, last = (extremes(means.loc[update], "{:.3g}") for update in means.index[[0, -1]].get_level_values(0))
        return f"at first {first}, at the end {last}"

    return (
        f"Line charts of {column.replace('_', ' ')} against update, {PANELS}. The mean over seeds: "
        f"{in_each(course, say)}"
    )


def updates_to_99(cells: pd.DataFrame) -> str:
    """Of `figures.updates_to_99`, from `summaries.summarise`."""
    return (
        f"Dot chart of updates to 99 % validation accuracy, {ROWS}, every seed a small dot. The restricted mean, "
        f"with its interval: {of_cells(cells, 'rmst')}"
    )


def rmst_by_cell(cells: pd.DataFrame) -> str:
    """Of `figures.rmst_by_cell`, from `summaries.summarise`: each arm's extremes, the cells named."""
    table, settings = over_two_settings(cells)
    never = (table["reached"] == 0).sum()

    def say(rows: pd.DataFrame) -> str:
        arms = rows.set_index("cell").groupby("schedule", sort=False)["rmst"]
        return ", ".join(f"{arm} {extremes(values)}" for arm, values in arms)

    return (
        f"Heat maps of restricted mean updates to 99 % validation accuracy, {ROWS}, over "
        f"{' and '.join(settings[:2]).replace('_', ' ')}. No seed reached 99 % in {never} of {len(table)} cells. "
        f"The cells: {in_each(table, say)}"
    )


def share_grokked(cells: pd.DataFrame) -> str:
    """Of `figures.share_grokked`, from `summaries.summarise`."""
    return (
        f"Step lines of the share of seeds above 99 % validation accuracy against update, {PANELS}. At the last "
        f"update: {of_cells(cells, 'share', '{:.0%}')}"
    )


def dose_response(dose: pd.DataFrame) -> str:
    """Of `evidence.figures.dose_response`, from `effects.dose_response`."""

    def say(rows: pd.DataFrame) -> str:
        parts = {"constants": rows[rows["constant"]], "others": rows[~rows["constant"]]}
        told = [f"{words} {extremes(of.set_index('schedule')['rmst'])}" for words, of in parts.items() if len(of)]
        return ", ".join(told)

    return (
        "Line chart of updates to 99 % validation accuracy against mean batch size, a panel for each operation, "
        f"constant batches joined by a line, arms that change theirs as points. Restricted means: {in_each(dose, say)}"
    )


def forest(rows: pd.DataFrame, less: str) -> str:
    """Of `evidence.figures.forest`: `rows` as there, the differences from what `less` says."""

    def say(of: pd.DataFrame) -> str:
        names = of["label"] if of["label"].is_unique else of["label"] + " " + of["arm"]
        return extremes(of.set_index(names)["difference"], "{:+,.0f}")

    return (
        f"Dots with 95 % intervals, a panel for each operation, of differences in updates to 99 % validation accuracy, "
        f"{less}, on the horizontal axis: {in_each(rows, say)}"
    )


def share_with_band(band: pd.DataFrame) -> str:
    """Of `evidence.figures.share_with_band`, from `inference.share_band` at a few updates."""
    told = [
        f"by update {update:,} {', '.join(f'{r.schedule} {r.reached} of {r.n}' for r in rows.itertuples())}"
        for update, rows in band.groupby("update")
    ]
    return (
        "Step lines in a band, a panel for each arm: the share of seeds above 99 % validation accuracy on permutation "
        f"against update. Seeds above it: {'; '.join(told)}."
    )


def stability(table: pd.DataFrame) -> str:
    """Of `evidence.figures.stability`, from `effects.stability`."""
    return (
        f"Dot chart of the share of later logs that are not above 99 %, {ROWS}, every seed a dot. The mean: "
        f"{of_cells(table[table['crossed'] > 0], 'share_below', '{:.1%}')}"
    )
