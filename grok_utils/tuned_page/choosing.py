"""How tuning was done and what it cost: cells tried, best cells, edges, what stage 2 chose, power, models and hours."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import in_order
from grok_utils.page.prose import from_to, listed
from grok_utils.tasks import OPERATIONS, written
from grok_utils.tuned import choices
from grok_utils.tuned.choices import ARM
from grok_utils.tuned.decisions import OUTCOMES
from grok_utils.tuned.power import power
from grok_utils.tuned.stages import STAGE_1, points
from grok_utils.tuned_page.reading import SELECT, Tuned

NEAR = STAGE_1[-1]  # the neighbours of the best cells, at factors of √2: no part of the grid that edges are of
ENOUGH = 0.8  # power


def best_cells(cells: pd.DataFrame, members: pd.DataFrame) -> pd.DataFrame:
    """The best cell of each arm, operation and outcome of `choices.ranked`: its row with tried, how many cells, and
    edge, the sides of the grid of `members` on which it lies (empty: on none)."""
    best = choices.best(cells.assign(tried=cells.groupby(ARM)["n"].transform("size")))
    grids = points(members)
    return best.assign(edge=[", ".join(edges(grids[row.operation, row.schedule], row)) for row in best.itertuples()])


def edges(grid: set[choices.Point], row: Any) -> Iterator[str]:
    """On which sides of its grid a cell lies, where a step further would be within the slowest timescale."""
    further = choices.beyond(grid, [(row.learning_rate, row.weight_decay)])
    for axis, name in enumerate(("rate", "decay")):
        values = [point[axis] for point in grid]
        if any(point[axis] < min(values) for point in further):
            yield f"lowest {name}"
        if any(point[axis] > max(values) for point in further):
            yield f"highest {name}"


def arms_table(best: pd.DataFrame) -> pd.DataFrame:
    """A row an arm: cells tried, and on each operation the best cell by touch: its median at rate · decay."""
    touch = best[best["outcome"] == OUTCOMES[0]]
    known = [
        f"{row.median:,.0f} at {row.learning_rate:.3g} · {row.weight_decay:.3g}{' *' if row.edge else ''}"
        for row in touch.itertuples()
    ]
    told = np.where(np.isfinite(touch["median"]), known, "never")
    table = touch.assign(told=told).pivot_table("told", "schedule", "operation", aggfunc="first").fillna("–")
    table = table[in_order(table, OPERATIONS)].rename(columns=written)
    table.insert(0, "cells tried", touch.groupby("schedule")["tried"].agg(from_to))
    return table.loc[in_order(table.index)].reset_index(names="arm")


def edges_line(best: pd.DataFrame) -> str:
    """Where the best cell is still on an edge of the grid."""
    on_edge = best[(best["edge"] != "") & np.isfinite(best["median"])]
    never = best[~np.isfinite(best["median"])]
    told = [f"{len(best)} best cells were looked for: one for each arm, operation and outcome."]
    if len(on_edge):
        each = [
            f"`{arm}` on {written(operation)} ({listed(in_order(of['outcome'], OUTCOMES))}: {of['edge'].iloc[0]})"
            for (operation, arm), of in on_edge.groupby(["operation", "schedule"], sort=False)
        ]
        told.append(
            f"**Edge not found** in {len(on_edge)}: after two extensions of the grid the best cell was still on its "
            f"edge, so a better one may lie beyond: {listed(each)}."
        )
    else:
        told.append("None is on an edge of its grid.")
    if len(never):
        told.append(f"In {len(never)} no cell takes half of its seeds to 99 % (*never* in [Table](#best-cells)).")
    return " ".join(told)


def selection_line(t: Tuned) -> str:
    """What stage 2 chose: cells that are not eligible, and the ratio of second to first."""
    chosen = t.chosen
    several = chosen.loc[chosen["second_to_first"] > 1, "second_to_first"]
    told = [
        "Stage 2 fixed the comparators, the soonest constants ([Table](#chosen)). "
        f"{(~chosen['eligible']).sum()} of {len(chosen)} choices are *not tuned*. "
        "In every cell of theirs more than one of 16 seeds fails."
    ]
    if len(several):
        told.append(
            f"The second cell of an arm needs {several.median():.2f} times the updates of its first (median of "
            f"{len(several)}, {several.max():.2f} at most). We call a smaller difference between two arms unresolved."
        )
    return " ".join(told)


def power_table(t: Tuned) -> pd.DataFrame:
    """`power.power` at the spreads of stage 2, a row a family, outcome and number of seeds: contrasts, sd (median), and
    of how many of them a difference of 10 % and an equivalence have a power of 80 %."""
    table = power(t.members[SELECT], t.chosen)
    kinds = ["difference", "in_family", "equivalence"]
    groups = table.assign(**(table[kinds] >= ENOUGH)).groupby(["family", "outcome", "seeds"], sort=False)
    sizes = groups.agg(contrasts=("sd", "size"), sd=("sd", "median"))
    return sizes.join(groups[kinds].sum()).reset_index()


def cost_table(t: Tuned) -> pd.DataFrame:
    """A row a stage: studies, models, millions of updates, records, hours of training."""
    s = t.studies.assign(millions=t.studies["models"] * t.studies["updates"] / 1e6, hours=t.studies["seconds"] / 3600)
    stages = s.groupby("stage", sort=False)
    summed = stages[["models", "millions", "records", "hours"]].sum()
    return stages.size().rename("studies").to_frame().join(summed).reset_index()
