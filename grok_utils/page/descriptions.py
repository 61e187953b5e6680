"""What a figure shows, in words for readers who do not see it: what their alternative texts share."""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import by_operation
from grok_utils.tasks import written

PANELS = "a panel for each operation, a line for each arm"
ROWS = "a panel for each operation, a row for each arm"


def in_each(frame: pd.DataFrame, say: Callable[[pd.DataFrame], str]) -> str:
    """What `say` says of each operation's rows: `on x + y …. On x / y ….`"""
    return f"on {'. On '.join(f'{written(name)} {say(rows)}' for name, rows in by_operation(frame))}."


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


def courses(sizes: Mapping[str, np.ndarray]) -> str:
    """How each arm's batch sizes go: `baseline stays at 512, linear grows from 32 to 512.`"""
    told = []
    for arm, size in sizes.items():
        steps, ends = np.diff(size), f"from {size[0]:,} to {size[-1]:,}"
        if (steps == 0).all():
            told.append(f"{arm} stays at {size[0]:,}")
        elif (steps >= 0).all() or (steps <= 0).all():
            told.append(f"{arm} {'grows' if size[-1] > size[0] else 'shrinks'} {ends}")
        else:
            told.append(f"{arm} varies between {size.min():,} and {size.max():,}")
    return f"{', '.join(told)}."
