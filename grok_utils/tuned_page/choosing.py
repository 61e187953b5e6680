"""How tuning was done and what it cost: cells tried, best cells, edges, what stage 2 chose, power, models and hours."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import in_order
from grok_utils.page import tables
from grok_utils.page.prose import from_to, listed
from grok_utils.store.records import makings
from grok_utils.tasks import OPERATIONS, written
from grok_utils.tuned import choices
from grok_utils.tuned.choices import ARM, POINT
from grok_utils.tuned.decisions import OUTCOMES
from grok_utils.tuned.power import power
from grok_utils.tuned.stages import STAGE_1, points
from grok_utils.tuned_page.reading import SELECT, SURFACE, Tuned

NEAR = STAGE_1[-1]  # the neighbours of the best cells, at factors of √2: no part of the grid that edges are of
SIDES = {"learning_rate": "rate", "weight_decay": "decay"}
ENOUGH = 0.8  # power


def cell(row: Any) -> str:
    """A cell in few characters: rate · decay, such as `0.008 · 1`."""
    return f"{row.learning_rate:.3g} · {row.weight_decay:.3g}"


def surface_cells(t: Tuned) -> pd.DataFrame:
    """The rows of `choices.ranked` of stage 1; none without records."""
    return choices.ranked(t.of(SURFACE)) if len(t.of(SURFACE)) else pd.DataFrame(columns=[*ARM, *POINT])


def best_cells(t: Tuned, cells: pd.DataFrame) -> pd.DataFrame:
    """The best cell of each arm, operation and outcome of stage 1's `cells`: those of `choices.best` with tried, and
    edge, the sides of the grid on which it still is after the extensions (empty: on none)."""
    best = choices.best(cells).copy()
    tried = cells.groupby(ARM).size()
    best["tried"] = [int(tried[key]) for key in best[ARM].itertuples(index=False, name=None)]
    members = t.of(SURFACE)
    grids = points(members[members["study"] != NEAR])
    best["edge"] = [", ".join(edges(grids[row.operation, row.schedule], row)) for row in best.itertuples()]
    return best


def edges(grid: set[choices.Point], row: Any) -> Iterator[str]:
    """On which sides of its grid a cell lies, where a step further would be within the slowest timescale."""
    further = choices.beyond(grid, [(row.learning_rate, row.weight_decay)])
    for axis, name in enumerate(SIDES):
        values = [point[axis] for point in grid]
        for side, beyond in (
            ("lowest", [p for p in further if p[axis] < min(values)]),
            ("highest", [p for p in further if p[axis] > max(values)]),
        ):
            if beyond:
                yield f"{side} {SIDES[name]}"


def arms_table(best: pd.DataFrame) -> pd.DataFrame:
    """A row an arm: cells tried, and on each operation the best cell by touch with its median."""
    rows = []
    touch = best[best["outcome"] == OUTCOMES[0]]
    operations = in_order(touch["operation"], OPERATIONS)
    for arm in in_order(touch["schedule"]):
        of = touch[touch["schedule"] == arm].set_index("operation")
        row = {"arm": arm, "cells tried": from_to(of["tried"])}
        for operation in operations:
            found = of.loc[operation] if operation in of.index else None
            told = "–"
            if found is not None:
                told = f"{found['median']:,.0f} at {cell(found)}{' *' if found['edge'] else ''}"
                told = told if np.isfinite(found["median"]) else "never"
            row[written(operation)] = told
        rows.append(row)
    return pd.DataFrame(rows)


def edges_line(best: pd.DataFrame) -> str:
    """Where the best cell is still on an edge of the grid."""
    if best.empty:
        return ""
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
        each = [
            f"{listed(f'`{arm}`' for arm in in_order(of['schedule']))} on {written(operation)}"
            for operation, of in never.groupby("operation", sort=False)
        ]
        told.append(f"In {len(never)} no cell takes half of its seeds to 99 %: {'; '.join(each)}.")
    return " ".join(told)


def selection_line(t: Tuned) -> str:
    """What stage 2 chose: comparators, cells that are not eligible, and the ratio of second to first."""
    chosen = t.chosen
    if chosen.empty:
        return t.lacks(SELECT)
    several = chosen.loc[chosen["second_to_first"] > 1, "second_to_first"]
    told = [t.lacks(SELECT)]
    if not told[0]:
        each = [
            f"`{r.comparator}` on {written(r.operation)} by {r.outcome} ({r.mean:,.0f} updates)"
            for r in chosen[chosen["schedule"] == chosen["comparator"]].itertuples()
        ]
        told.append(f"Stage 2 fixed the comparators, the soonest constants: {listed(each)}.")
    else:
        told.append("So far:")
    told.append(
        f"Of {len(chosen)} choices {(~chosen['eligible']).sum()} are *not tuned*: in every cell more than one of 16 "
        "seeds fails."
    )
    if len(several):
        told.append(
            f"The second cell of an arm needs {several.median():.2f} times the updates of its first (median of "
            f"{len(several)}; up to {several.max():.2f}): a smaller difference between two arms is called unresolved."
        )
    return " ".join(filter(None, told))


def power_table(t: Tuned) -> pd.DataFrame:
    """`power.power` at the spreads of stage 2, a row a family, outcome and number of seeds: contrasts, sd (median), and
    of how many of them a difference of 10 % and an equivalence have a power of 80 %."""
    if t.chosen.empty:
        return pd.DataFrame()
    rows = []
    for (family, outcome, seeds), of in power(t.of(SELECT), t.chosen).groupby(
        ["family", "outcome", "seeds"], sort=False
    ):
        row = {"family": family, "outcome": outcome, "seeds": seeds, "contrasts": len(of), "sd": of["sd"].median()}
        rows.append(
            row | {name: int((of[name] >= ENOUGH).sum()) for name in ("difference", "in_family", "equivalence")}
        )
    return pd.DataFrame(rows)


def cost_table(t: Tuned) -> pd.DataFrame:
    """A row a stage: studies, models, millions of updates, records there and planned, hours of training."""
    s = t.studies.assign(millions=t.studies["models"] * t.studies["updates"] / 1e6, hours=t.studies["seconds"] / 3600)
    if s.empty:
        return s
    table = s.groupby("stage", sort=False).agg(
        studies=("study", "size"),
        models=("models", "sum"),
        millions=("millions", "sum"),
        records=("records", "sum"),
        planned=("planned", "sum"),
        hours=("hours", "sum"),
    )
    return table.reset_index()


def power_line(t: Tuned) -> str:
    """What the numbers of power are worth while stage 2 is not complete."""
    if t.chosen.empty or t.complete(SELECT):
        return ""
    arms = in_order(t.chosen["schedule"])
    return (
        f"Power at a partial stage 2 is that of the {len(arms)} arms that are there, against the soonest constant so "
        "far: it changes as others come."
    )


def operations(cells: pd.DataFrame) -> list[str]:
    """Those that stage 1 has cells of, in their order."""
    return in_order(cells["operation"], OPERATIONS)


def provenance(t: Tuned) -> pd.DataFrame:
    """How the records were made."""
    return tables.provenance(makings(t.metadata))
