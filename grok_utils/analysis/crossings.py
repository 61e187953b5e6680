"""When each member first exceeds 99 %, if it does, and the order in which operations, arms and cells are told.

All members of a study are censored at the same update, its horizon. The mean of min(crossing, horizon) is therefore
exactly the restricted mean survival time (RMST) at the horizon, and the empirical distribution of the crossings is one
minus the Kaplan–Meier curve.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from grok_utils.schedules import BLOCK, SCHEDULES
from grok_utils.studies import THRESHOLD
from grok_utils.tasks import OPERATIONS

MEMBER = ["schedule", "cell", "operation", "seed"]
ARMS = ("baseline", *SCHEDULES)  # arms in the order in which they are told
GROUP = ["operation", "schedule", "cell"]  # whose members differ in their seeds alone


def in_order(names: Iterable[str], known: Iterable[str] = ARMS) -> list[str]:
    """Distinct names of arms (or of operations): first the `known` ones in their order, then others by name.

    A number within a name counts as a number: constant-64 comes before constant-128.
    """
    rank = {name: i for i, name in enumerate(known)}
    parts = {name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)] for name in dict.fromkeys(names)}
    return sorted(parts, key=lambda name: (rank.get(name, len(rank)), parts[name]))


def cell_values(cell: str) -> dict[str, float]:
    """The settings that a cell's name holds, such as `learning_rate=0.002 weight_decay=1`; none of an empty name."""
    return {name: float(value) for name, value in (part.split("=") for part in cell.split())}


def by_operation(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each operation, in the protocol's order."""
    for operation in in_order(frame["operation"], OPERATIONS):
        yield operation, frame[frame["operation"] == operation]


def rows_in_order(frame: pd.DataFrame, **ascending: bool) -> pd.DataFrame:
    """The rows by operation, in the protocol's order, then by these columns, ascending or not; equals as they come."""
    table = frame.assign(_place=frame["operation"].map(in_order(frame["operation"], OPERATIONS).index))
    by, up = ["_place", *ascending], [True, *ascending.values()]
    return table.sort_values(by, ascending=up, kind="stable", ignore_index=True).drop(columns="_place")


def by_cell(frame: pd.DataFrame, within: Sequence[str] = ()) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The rows of each (operation, schedule, cell, *within) with that key, in the protocol's order; cells by value."""
    groups = dict(list(frame.groupby([*GROUP, *within], sort=False)))
    operations, arms = in_order(frame["operation"], OPERATIONS), in_order(frame["schedule"])
    place = {cell: list(cell_values(cell).items()) for cell in frame["cell"].unique()}
    for key in sorted(groups, key=lambda key: (operations.index(key[0]), arms.index(key[1]), place[key[2]])):
        yield dict(zip([*GROUP, *within], key, strict=True)), groups[key]


def measured(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows of the logs at which `column` was measured: all, or every tenth and the last where no other has it."""
    update = frame["update"]
    kept = (update % (10 * BLOCK) == 0) | (update == update.max())
    return frame[kept] if frame.loc[~kept, column].isna().all() else frame


def ended_early(frame: pd.DataFrame) -> pd.Series:
    """Whether each member's run ended early, by MEMBER: it has no validation accuracy at the study's last update."""
    return frame[frame["update"] == frame["update"].max()].set_index(MEMBER)["val_accuracy"].isna()


def while_all_train(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows up to where the first of a cell's runs ended early: from there on, slow seeds alone are left."""
    if not ended_early(frame).any():
        return frame
    trained = frame.dropna(subset="val_accuracy").groupby(MEMBER)["update"].max()
    return frame[frame["update"] <= frame[GROUP].join(trained.groupby(GROUP).min(), on=GROUP)["update"]]


def crossings(frame: pd.DataFrame, threshold: float = THRESHOLD) -> pd.DataFrame:
    """One row a member: when its validation accuracy first exceeds `threshold`, if it does.

    Columns: those of MEMBER, reached (bool), updates (float: the first logged update above the threshold, NaN if
    never), restricted (updates, or the horizon if never), examples_seen (at the crossing), restricted_examples (those,
    or the run's if never), diverged, horizon.
    A member that diverges at any time never counts as reached. ValueError where members end at different updates, and
    where runs that ended early leave unknown whether a member would have reached `threshold`.
    """
    members = frame.groupby(MEMBER)
    last = members["update"].max()
    if len(horizons := last.unique()) > 1:
        raise ValueError(f"members end at different updates: {sorted(horizons.tolist())}; a study has one horizon")
    above = frame[frame["val_accuracy"] > np.float32(threshold)].sort_values("update")
    table = pd.DataFrame({"diverged": members["diverged"].any(), "horizon": last})
    first = above.groupby(MEMBER)[["update", "examples_seen"]].first().reindex(last.index).astype(float)
    first = first.mask(table["diverged"], axis=0)
    table["reached"] = first["update"].notna()
    unknown = ended_early(frame)[table.index] & ~table["reached"] & ~table["diverged"]
    if unknown.any():
        raise ValueError(f"the runs of {unknown.sum()} members ended early, before they reached {threshold:.1%}")
    table[["updates", "examples_seen"]] = first
    table["restricted"] = table["updates"].fillna(table["horizon"])
    table["restricted_examples"] = table["examples_seen"].fillna(members["examples_seen"].max())
    return pd.concat([rows for _, rows in by_cell(table.reset_index())], ignore_index=True)
