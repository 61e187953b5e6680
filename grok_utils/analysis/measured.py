"""A study's measures: how they go, and what they are when a member crosses 99 %."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import GROUP, MEMBER, by_cell, while_all_train
from grok_utils.measures import RATIOS, columns_of


def shown(measures: Iterable[str]) -> list[str]:
    """The columns of these measures, and the ratios of columns that are all among them."""
    columns = columns_of(measures)
    return columns + [name for name, parts in RATIOS.items() if set(parts) <= set(columns)]


def value(means: pd.DataFrame, column: str) -> pd.Series:
    """A column of `means`, or a ratio of two: NaN where the lower one is not positive, as an estimate of few may be."""
    if column not in RATIOS:
        return means[column]
    above, below = (means[part] for part in RATIOS[column])
    return (above / below).where(below > 0)


def over_decades(values: pd.Series) -> bool:
    """Whether the positive ones of a measure's values span more than two decades, and are best seen in logarithms."""
    positive = values[values > 0]
    return len(positive) > 0 and positive.max() > 100 * positive.min()


def course(frame: pd.DataFrame, column: str, points: int = 30) -> pd.DataFrame:
    """A measure's mean over the logs up to each of `points` updates, of each member; a ratio is of seeds' means too.

    Columns: those of MEMBER or, of a ratio, of GROUP; then update and `column`. Logs without a value are left out.
    It ends where the first of a cell's runs did.
    """
    parts = [*RATIOS.get(column, (column,))]
    known = while_all_train(frame).dropna(subset=parts)
    updates = np.sort(known["update"].unique())
    ends = np.sort(updates[:: -max(1, -(-len(updates) // points))])  # the last update among them
    by = [*(GROUP if column in RATIOS else MEMBER), "update"]
    until = known.assign(update=ends[np.searchsorted(ends, known["update"])])
    means = until.groupby(by, as_index=False)[parts].mean()
    return means.assign(**{column: value(means, column)})[[*by, column]]


def courses(frame: pd.DataFrame, measures: Iterable[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each of the columns and ratios that has a value anywhere, with its `course`."""
    for column in shown(measures):
        found = course(frame, column)
        if found[column].notna().any():
            yield column, found


def at_crossing(frame: pd.DataFrame, members: pd.DataFrame, measures: Iterable[str]) -> pd.DataFrame:
    """Each measure where members cross 99 %, or at the next log that has it: the median of the `reached` that did.

    One row a cell of `members`, which is as from `crossings.crossings`; a ratio is of means. NaN where none did.
    """
    columns = columns_of(measures)
    crossed = frame.merge(members.loc[members["reached"], [*MEMBER, "updates"]], on=MEMBER)
    later = crossed[crossed["update"] >= crossed["updates"]].sort_values("update")
    rows = []
    for key, cell in by_cell(members[[*MEMBER, "reached"]].join(later.groupby(MEMBER)[columns].first(), on=MEMBER)):
        row = key | {"reached": int(cell["reached"].sum())} | dict(cell[columns].median())
        means = cell[columns].mean().to_frame().T
        rows.append(row | {name: value(means, name).item() for name in shown(measures) if name in RATIOS})
    return pd.DataFrame(rows)
