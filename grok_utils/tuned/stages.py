"""The study files of the tuned answer, each derived from the records of the stage before: `make select`."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import permutations, product
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pandas as pd
import yaml

from grok_utils.analysis.crossings import in_order
from grok_utils.pipeline.study_files import STUDIES, load_study
from grok_utils.store.files import write_text
from grok_utils.store.records import read_study, records_there
from grok_utils.tasks import OPERATIONS
from grok_utils.tuned import choices
from grok_utils.tuned.choices import ARM, POINT, Point

CONSTANTS, DYNAMIC, ANCHOR = "surface", "surface-schedules", "all-pairs"
EDGES = tuple(f"{first}-edge{step}" for first in (CONSTANTS, DYNAMIC) for step in ("", "-2"))
STAGE_1 = (CONSTANTS, DYNAMIC, *EDGES, "surface-near")
STAGE_2 = tuple(f"{name}-{horizon}" for name in ("select", "select-shapes") for horizon in choices.HORIZONS)
SLOW = ("constant-32", "constant-64")  # the constants without neighbours
SELECTION = {"seeds": "1100..1102", "precision": "tf32", "every_tenth": ["train_loss", "train_accuracy", "val_loss"]}
CHOICE = {"seeds": "1200..1215", "precision": "float32"}
NOISE = {"seeds": "3000..3007", "precision": "float32", "measures": ["gradient_noise"]}
NOISE |= {"every_tenth": SELECTION["every_tenth"]}
HELD_OUT, ITS_CHOICE = "x_minus_y", "x_div_y"  # the operation that nothing was chosen on, and whose cells it takes
Cells = dict[tuple[str, str], set[Point]]  # of each (operation, arm)


class Draft(NamedTuple):
    """A study file to be written."""

    name: str
    cells: Cells
    settings: dict[str, Any]
    changed: Mapping[str, dict[str, Any]] = MappingProxyType({})  # what arms have that are named like none of stage 1


class Stage(NamedTuple):
    """Study files that follow from the members of studies: `choices.outcomes` of its parents, with their study."""

    name: str
    title: str
    parents: tuple[str, ...]
    drafts: Callable[[pd.DataFrame], list[Draft]]


def edge(name: str, updates: int, members: pd.DataFrame) -> list[Draft]:
    """The cells one step beyond a grid whose soonest cell is on its edge."""
    every = choices.ranked(members)
    soonest = points(choices.best(every))
    cells = {key: choices.beyond(grid, soonest[key]) for key, grid in points(every).items()}
    return [Draft(name, cells, {"updates": updates} | SELECTION)]


def near(members: pd.DataFrame) -> list[Draft]:
    """The neighbours of the soonest cells of the constants, but SLOW, and of the soonest dynamic arms."""
    every = choices.ranked(members)
    grid, soonest = points(every), points(choices.best(every))
    constants, dynamic = kinds(members)
    wanted = choices.soonest_arms(every, dynamic) | {key for key in grid if key[1] in constants - {*SLOW}}
    cells = {key: choices.around(soonest[key], 2**0.5) - grid[key] for key in wanted}
    return [Draft("surface-near", cells, {"updates": 2500} | SELECTION)]


def shapes(members: pd.DataFrame) -> list[Draft]:
    """Every geometric course, on 3 × 3 cells round the soonest by kept of the constants at its two ends."""
    soonest = choices.best(choices.ranked(members)).query("outcome == 'kept'").set_index(ARM[:2])
    cells = {}
    for operation in soonest.index.unique("operation"):
        for name, course in SHAPES.items():
            ends = [soonest.loc[operation, constant_of(course[end])] for end in ("lo", "hi")]
            cells[operation, name] = choices.around([min(ends, key=lambda row: row["median"])[POINT]])
    return [Draft("shapes", cells, {"updates": 1000} | SELECTION)]


def candidates(members: pd.DataFrame) -> list[Draft]:
    """Stage 2's cells of each arm and operation, by its horizon."""
    every = choices.ranked(members)
    horizons = choices.horizons(every)
    horizons |= {key: 2500 for key in horizons if key[1] == ANCHOR}  # it decides nothing, and an update costs most
    return by_horizon("select", points(choices.candidates(every)), horizons)


def shape_candidates(members: pd.DataFrame) -> list[Draft]:
    """Stage 2's cells of the shapes that go on: the four soonest by each outcome, the four lowest by the frontier."""
    every = choices.ranked(members)
    lowest = choices.below_frontier(members, choices.best(every), kinds(members)[0], SHAPES)
    going_on = choices.soonest_arms(every, SHAPES) | lowest
    found = points(choices.candidates(every))
    return by_horizon("select-shapes", {key: found[key] for key in going_on}, choices.horizons(every))


def by_horizon(
    name: str, cells: Cells, horizons: dict[tuple[str, str], int], settings: dict[str, Any] = CHOICE
) -> list[Draft]:
    """A study for each horizon of stage 2."""
    of = {h: {key: found for key, found in cells.items() if horizons[key] == h} for h in choices.HORIZONS}
    return [Draft(f"{name}-{h}", found, {"updates": h} | settings) for h, found in of.items()]


def confirmation(members: pd.DataFrame) -> list[Draft]:
    """Stage 3: the chosen cells of the arms that it takes, by their horizon and number of seeds; x − y as x / y."""
    constants, dynamic = kinds(members)
    first = members["study"].isin((*STAGE_1, "shapes"))
    found = selected(members[~first])
    lowest = choices.below_frontier(members[first], choices.best(choices.ranked(members[first])), constants, SHAPES)
    stays = (found["outcome"] == "touch") & pd.MultiIndex.from_frame(found[ARM[:2]]).isin(list(lowest))
    taken = pd.concat([choices.taken(found, constants, dynamic, SHAPES), found[stays]])
    drafts: dict[tuple[int, int], Cells] = defaultdict(lambda: defaultdict(set))
    for (operation, arm), rows in taken.groupby(ARM[:2]):
        horizon = 7500 if rows["horizon"].max() == 7500 else 2000
        n = 60 if arm == "baseline" or (rows["times"] <= choices.WITHIN).any() else 30
        for o in (operation, HELD_OUT) if operation == ITS_CHOICE else (operation,):
            drafts[horizon, n][o, arm] |= points(rows)[operation, arm]
    return [
        Draft(f"tuned-{h}-{n}", cells, {"updates": h, "seeds": f"3000..{2999 + n}", "precision": "float32"})
        for (h, n), cells in sorted(drafts.items())
    ]


def noise(members: pd.DataFrame) -> list[Draft]:
    """The constants at the cells chosen for them by touch, with seeds of stage 3, whose gradients are measured."""
    found = selected(members[~members["study"].isin(STAGE_1)])
    found = found[(found["outcome"] == "touch") & found["schedule"].isin(kinds(members)[0])]
    return by_horizon("noise", points(found), found.set_index(ARM[:2])["horizon"].to_dict(), NOISE)


def oracle(members: pd.DataFrame) -> list[Draft]:
    """The seeds of ours beside which the original's own code runs: batch 512 at its common cell."""
    cell = choices.common(members, TOGETHER)["baseline"]
    cells: Cells = {(o, "baseline"): {cell} for o in ORACLE}
    return [Draft("oracle", cells, {"updates": 7500, "seeds": "1400..1415", "precision": "float32"})]


def controls(members: pd.DataFrame) -> list[Draft]:
    """Constants round their common cells with one thing changed; growing schedules whose rate follows the batch."""
    first = members["study"].isin(STAGE_1)
    common = choices.common(members[first], TOGETHER)
    found = selected(members[~first])
    by_kept = found[(found["outcome"] == "kept") & found["operation"].isin(TOGETHER)]
    cells: Cells = {}
    changed: dict[str, dict[str, Any]] = {}
    for arm in ({constant_of(128), constant_of(512)} | {*by_kept["comparator"]}) & {*common}:
        size = {} if arm == constant_of(512) else {"batch_size": int(arm.split("-")[1])}
        for name, settings in CONTROLS.items():
            own = RATES.get(settings.get("optimizer", ""))
            grid = {p for p in product(*own) if p[0] * p[1] * choices.SLOWEST >= 1} if own else None
            changed[f"{arm}-{name}"] = size | settings
            cells |= {(o, f"{arm}-{name}"): grid or choices.around([common[arm]]) for o in TOGETHER}
        changed[f"{arm}-{OTHER}"] = size
        cells[OTHER, f"{arm}-{OTHER}"] = {common[arm]}
    for arm in {"linear", "cyclic"} & {*common}:
        cells |= {(o, f"{arm}-{UNCHANGED}"): choices.around([common[arm]]) for o in TOGETHER}
        changed[f"{arm}-{UNCHANGED}"] = {"batch_size": {"schedule": arm}}
        for rate, decay in choices.around([common[constant_of(512)]]):
            name = f"{arm}-{FOLLOWS}-{rate:g}"
            changed[name] = {"batch_size": {"schedule": arm}}
            changed[name] |= {"learning_rate": {"follows": "batch_size", "value": rate, "at": 512, "power": 0.5}}
            for o in TOGETHER:
                cells.setdefault((o, name), set()).add((rate, decay))
    settings = {"updates": 2500} | SELECTION | {"seeds": "1300..1305"}
    return [Draft("controls", cells, settings, changed)]


def selected(members: pd.DataFrame) -> pd.DataFrame:
    """The cells that stage 2's members choose, beside its comparators, as `choices.compared` gives."""
    return choices.compared(members, choices.chosen(members), kinds(members)[0])


def kinds(members: pd.DataFrame) -> tuple[set[str], set[str]]:
    """The arms that are constants, and those that are dynamic and no shapes."""
    arms = {*members["schedule"]} - {ANCHOR, *SHAPES}
    constants = {arm for arm in arms if arm == constant_of(512) or arm.startswith("constant-")}
    return constants, arms - constants


def constant_of(size: int) -> str:
    """The name of the arm with this constant batch size."""
    return "baseline" if size == 512 else f"constant-{size}"


SIZES = (128, 256, 512, 1024, 2048)
SHAPES: dict[str, dict[str, Any]] = {
    f"geometric-{lo}-{hi}-{length}": {"schedule": "geometric", "lo": lo, "hi": hi, "length": length}
    for length in (100, 300)
    for lo, hi in permutations(SIZES, 2)
}
TOGETHER = ("x_plus_y", "x_div_y")  # the operations that a common cell serves
ORACLE = (*TOGETHER, "permutation")
UNCHANGED, FOLLOWS, OTHER = "as-tuned", "rate-follows", "x3_plus_xy"
CONTROLS: dict[str, dict[str, Any]] = {  # by what ends the arm's name, the settings that change
    UNCHANGED: {},
    "beta2-0.995": {"beta2": 0.995},
    "beta2-0.9987": {"beta2": 0.9987},
    "warm-up-0": {"warm_up": 0},
    "warm-up-200": {"warm_up": 200},
    "train-fraction-0.3": {"train_fraction": 0.3},
    "train-fraction-0.7": {"train_fraction": 0.7},
    "width-64": {"width": 64},
    "width-256": {"width": 256},
    "sgd": {"optimizer": "sgd"},
    "muon": {"optimizer": "muon"},
}
RATES = {  # of the optimizers that have rates and decays of their own
    "sgd": ((0.05, 0.1, 0.2, 0.4, 0.8), (0.0025, 0.005, 0.01, 0.02, 0.04)),
    "muon": ((0.0005, 0.001, 0.002, 0.004, 0.008), (0.125, 0.25, 0.5, 1.0, 2.0)),
}
BEYOND = "The grid of {} a step further, where an arm's soonest cell is on its edge"
AGAIN = "Stage 2: the soonest cells of each {} again, on seeds of their own"
STAGES = (
    Stage(EDGES[0], BEYOND.format(CONSTANTS), (CONSTANTS,), partial(edge, EDGES[0], 7500)),
    Stage(EDGES[1], BEYOND.format(EDGES[0]), (CONSTANTS, EDGES[0]), partial(edge, EDGES[1], 7500)),
    Stage(EDGES[2], BEYOND.format(DYNAMIC), (DYNAMIC,), partial(edge, EDGES[2], 2500)),
    Stage(EDGES[3], BEYOND.format(EDGES[2]), (DYNAMIC, EDGES[2]), partial(edge, EDGES[3], 2500)),
    Stage("surface-near", "The neighbours of the soonest cells, at factors of √2", STAGE_1[:-1], near),
    Stage("oracle", "Batch 512 at its common cell, beside the original's own code there", STAGE_1, oracle),
    Stage("shapes", "Geometric courses of the batch size, down and up, within 100 and 300 updates", STAGE_1, shapes),
    Stage("select", AGAIN.format("arm"), STAGE_1, candidates),
    Stage("select-shapes", AGAIN.format("shape that goes on"), (*STAGE_1, "shapes"), shape_candidates),
    Stage("tuned", "Stage 3: each arm at the cells chosen for it", (*STAGE_1, "shapes", *STAGE_2), confirmation),
    Stage("noise", "The gradient noise scale along tuned runs", (*STAGE_1, *STAGE_2[:3]), noise),
    Stage("controls", "The tuned constants with one thing changed", (*STAGE_1, *STAGE_2[:3]), controls),
)


def derive(results: Path, folder: Path = STUDIES) -> Iterator[str]:
    """Write each study file that the records in `results` decide to `folder`, and say which, and what lacks.

    A stage is derived once all records are there of the studies it follows from. Raises Damaged on a bad record.
    """
    pending: set[str] = set()  # studies that cannot be derived yet
    read: dict[str, pd.DataFrame] = {}
    for stage in STAGES:
        studies = [load_study(str(path)) for name in stage.parents if (path := folder / f"{name}.yaml").exists()]
        lacking = {s.name: records_there(s, results).count(False) for s in studies}
        if any(name.startswith(tuple(pending)) for name in stage.parents) or any(lacking.values()):
            pending.add(stage.name)
            needed = "; ".join(f"make all STUDY={name} ({n} records)" for name, n in lacking.items() if n)
            yield f"{stage.name}: follows from records that are not there yet: {needed or 'of the stages above'}"
            continue
        for s in studies:
            if s.name not in read:
                read[s.name] = choices.outcomes(read_study(s, results)[0]).assign(study=s.name)
        members = pd.concat([read[s.name] for s in studies])
        drafts = [draft for draft in stage.drafts(members) if any(draft.cells.values())]
        for draft in drafts:
            write_text(folder / f"{draft.name}.yaml", study_text(stage, draft, folder))
            many = sum(map(len, draft.cells.values()))
            yield f"{draft.name}: {many} cells of arms on operations, {draft.settings['updates']:,} updates"
        if not drafts:
            yield f"{stage.name}: not needed"


def points(cells: pd.DataFrame) -> Cells:
    """The cells of each (operation, arm)."""
    return {key: set(rows[POINT].itertuples(index=False, name=None)) for key, rows in cells.groupby(ARM[:2])}


def study_text(stage: Stage, draft: Draft, folder: Path) -> str:
    """The study file, arm by arm; rates with the same decays are one mapping of an arm's grid."""
    given: dict[str, Any] = {name: {"batch_size": course} for name, course in SHAPES.items()} | {**draft.changed}
    for first in (CONSTANTS, DYNAMIC):
        given |= yaml.safe_load((folder / f"{first}.yaml").read_text(encoding="utf-8"))["arms"]
    arms = {}
    for arm in in_order(name for (_, name), found in draft.cells.items() if found):
        operations = in_order((o for (o, name), found in draft.cells.items() if name == arm and found), OPERATIONS)
        own, grid = given[arm] or {}, []
        for operation in operations:
            decays, rates = defaultdict(list), defaultdict(list)
            for rate, decay in sorted(draft.cells[operation, arm]):
                decays[rate].append(decay)
            for rate, of in decays.items():
                rates[tuple(of)].append(rate)
            for shared, of in rates.items():
                mapping = {"operations": [operation], "learning_rate": of, "weight_decay": list(shared)}
                grid.append({k: v for k, v in mapping.items() if k not in own})
        arms[arm] = own | {"operations": operations, "grid": grid}
    after = f"# Derived from the records of {', '.join(stage.parents)} by make select (ANALYSIS_PLAN.md, part two).\n"
    within = "" if draft.name == stage.name else f", within {draft.settings['updates']:,} updates"
    study = {"title": stage.title + within, "arms": arms} | draft.settings
    return after + yaml.safe_dump(study, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
