"""The study files of the tuned answer, each derived from the records of the stage before: `make select`."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from grok_utils.analysis.crossings import in_order
from grok_utils.pipeline.plan import record_paths
from grok_utils.pipeline.study_files import STUDIES, load_study
from grok_utils.store.files import written_whole
from grok_utils.store.records import read_study
from grok_utils.tasks import OPERATIONS
from grok_utils.tuned import choices
from grok_utils.tuned.choices import ARM, POINT, Point

CONSTANTS, DYNAMIC, ANCHOR = "surface", "surface-schedules", "all-pairs"
EDGES = tuple(f"{first}-edge{step}" for first in (CONSTANTS, DYNAMIC) for step in ("", "-2"))
SLOW = ("constant-32", "constant-64")  # the constants without neighbours
STAGE_1 = {"seeds": "1100..1102", "precision": "tf32", "every_tenth": ["train_loss", "train_accuracy", "val_loss"]}
STAGE_2 = {"seeds": "1200..1215", "precision": "float32"}
Cells = dict[tuple[str, str], set[Point]]  # of each (operation, arm)


class Stage(NamedTuple):
    """A study file, or one for each horizon: which cells of which studies' members, and what else it says."""

    name: str
    title: str
    parents: tuple[str, ...]
    cells: Callable[[pd.DataFrame], dict[int, Cells]]  # for each number of updates, of `choices.outcomes`
    settings: dict[str, Any]


def edges(updates: int) -> Callable[[pd.DataFrame], dict[int, Cells]]:
    """The cells one step beyond a grid whose soonest cell is on its edge."""

    def cells(members: pd.DataFrame) -> dict[int, Cells]:
        every = choices.ranked(members)
        soonest = points(choices.best(every))
        return {updates: {key: choices.beyond(grid, soonest[key]) for key, grid in points(every).items()}}

    return cells


def near(members: pd.DataFrame) -> dict[int, Cells]:
    """The neighbours of the soonest cells of the constants, but SLOW, and of the soonest dynamic arms."""
    every = choices.ranked(members)
    grid, soonest = points(every), points(choices.best(every))
    arms = set(every["schedule"])
    dynamic = {*members.loc[members["study"] == DYNAMIC, "schedule"]} - {ANCHOR}
    wanted = choices.soonest_arms(every, dynamic) | {key for key in grid if key[1] in arms - dynamic - {*SLOW, ANCHOR}}
    return {2500: {key: choices.neighbours(grid[key], soonest[key]) for key in wanted}}


def candidates(members: pd.DataFrame) -> dict[int, Cells]:
    """Stage 2's cells of each arm and operation, by its horizon."""
    every = choices.ranked(members)
    horizons, found = choices.horizons(every), points(choices.candidates(every))
    horizons |= {key: 2500 for key in horizons if key[1] == ANCHOR}  # it decides nothing, and an update costs most
    return {h: {key: cells for key, cells in found.items() if horizons[key] == h} for h in choices.HORIZONS}


BEYOND = "The grid of {} a step further, where an arm's soonest cell is on its edge"
NEAR = "The neighbours of the soonest cells, at factors of √2"
CHOICE = "Stage 2: the soonest cells of each arm again, on seeds of their own"
STAGE_1_STUDIES = (CONSTANTS, DYNAMIC, *EDGES, "surface-near")
STAGES = (
    Stage(EDGES[0], BEYOND.format(CONSTANTS), (CONSTANTS,), edges(7500), STAGE_1),
    Stage(EDGES[1], BEYOND.format(EDGES[0]), (CONSTANTS, EDGES[0]), edges(7500), STAGE_1),
    Stage(EDGES[2], BEYOND.format(DYNAMIC), (DYNAMIC,), edges(2500), STAGE_1),
    Stage(EDGES[3], BEYOND.format(EDGES[2]), (DYNAMIC, EDGES[2]), edges(2500), STAGE_1),
    Stage("surface-near", NEAR, STAGE_1_STUDIES[:-1], near, STAGE_1),
    Stage("select", CHOICE, STAGE_1_STUDIES, candidates, STAGE_2),
)


def derive(results: Path, folder: Path = STUDIES) -> Iterator[str]:
    """Write each study file that the records in `results` decide to `folder`, and say which, and what lacks.

    A stage is derived once all records are there of the studies it follows from. Raises Damaged on a bad record.
    """
    pending: set[str] = set()  # stages that cannot be derived yet
    for stage in STAGES:
        studies = [load_study(str(path)) for name in stage.parents if (path := folder / f"{name}.yaml").exists()]
        lacking = {s.name: sum(not path.exists() for path in record_paths(s, results)) for s in studies}
        if pending.intersection(stage.parents) or any(lacking.values()):
            pending.add(stage.name)
            needed = "; ".join(f"make all STUDY={name} ({n} records)" for name, n in lacking.items() if n)
            yield f"{stage.name}: follows from records that are not there yet: {needed or 'of the stages above'}"
            continue
        members = pd.concat([choices.outcomes(read_study(s, results)[0]).assign(study=s.name) for s in studies])
        by_updates = {updates: cells for updates, cells in stage.cells(members).items() if any(cells.values())}
        for updates, cells in by_updates.items():
            path = folder / (f"{stage.name}-{updates}.yaml" if stage.name == "select" else f"{stage.name}.yaml")
            with written_whole(path) as temporary:
                temporary.write_text(study_text(stage, updates, cells, folder), encoding="utf-8")
            yield f"{path.stem}: {sum(map(len, cells.values()))} cells of arms on operations, {updates:,} updates"
        if not by_updates:
            yield f"{stage.name}: not needed, no soonest cell is on an edge"


def points(cells: pd.DataFrame) -> Cells:
    """The cells of each (operation, arm)."""
    return {key: set(rows[POINT].itertuples(index=False, name=None)) for key, rows in cells.groupby(ARM[:2])}


def study_text(stage: Stage, updates: int, cells: Cells, folder: Path) -> str:
    """The study file, arm by arm; rates with the same decays are one mapping of an arm's grid."""
    given: dict[str, Any] = {}
    for first in (CONSTANTS, DYNAMIC):
        given |= yaml.safe_load((folder / f"{first}.yaml").read_text(encoding="utf-8"))["arms"]
    arms = {}
    for arm in in_order(name for (_, name), found in cells.items() if found):
        operations = in_order((o for (o, name), found in cells.items() if name == arm and found), OPERATIONS)
        grid = []
        for operation in operations:
            decays, rates = defaultdict(list), defaultdict(list)
            for rate, decay in sorted(cells[operation, arm]):
                decays[rate].append(decay)
            for rate, of in decays.items():
                rates[tuple(of)].append(rate)
            grid += [
                {"operations": [operation], "learning_rate": of, "weight_decay": list(decay)}
                for decay, of in rates.items()
            ]
        arms[arm] = (given[arm] or {}) | {"operations": operations, "grid": grid}
    study = {"title": stage.title, "arms": arms, "updates": updates} | stage.settings
    after = f"# Derived from the records of {', '.join(stage.parents)} by make select (ANALYSIS_PLAN.md, part two).\n"
    return after + yaml.safe_dump(study, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
