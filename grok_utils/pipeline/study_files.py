"""A study file, read and checked: every bad value is told in one line before any work."""

import os
import re
from collections.abc import Collection
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from grok_utils.engine.trainer import MEASURED
from grok_utils.errors import BadInput, one_line, require, with_remedy
from grok_utils.measures import columns_of
from grok_utils.pipeline.settings import ALLOWED, CHECKS, CROSSED, check, check_seeds, fits, hyper, is_some_of, known
from grok_utils.schedules import BLOCK, SCHEDULES
from grok_utils.store.files import NOTEBOOKS, require_clone
from grok_utils.studies import DEFAULTS, HYPER, Arm, Cell, Settings, Study
from grok_utils.tasks import OPERATIONS, count_pairs, count_train

STUDIES = NOTEBOOKS / "studies"
NAME = re.compile(r"\w[\w.-]{0,49}")  # of a study or an arm: the name of a folder or file, and a word of a command line
NAME_ALLOWED = "a name of at most 50 letters, digits, _ . and -, which . and - do not begin"
TAKEN = ("evidence", "tuned", "bench", "explore")  # folders of results that are no study's
Grid = list[dict[str, Any]]  # mappings of settings to lists of numbers
OF_STUDY = ("title", "seeds", "updates", "every_tenth", "measures", "stop_after")


class _Loader(yaml.SafeLoader):
    """YAML's plain types only, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        merge = "tag:yaml.org,2002:merge"
        names = [self.construct_object(name, deep=True) for name, _ in node.value if name.tag != merge]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_study(study: str, precision: str | None = None) -> Study:
    """The checked study of a name in notebooks/studies, or of a path to a YAML file; `precision` replaces the study's.

    Raises BadInput with one line for whatever is not allowed.
    """
    require(isinstance(study, str) and study != "", "study", study, "a study's name or the path of a .yaml file")
    if not study.endswith((".yaml", ".yml")):
        require_clone()
    path = Path(study) if study.endswith((".yaml", ".yml")) else STUDIES / f"{study}.yaml"
    names = ", ".join(sorted(p.stem for p in STUDIES.glob("*.yaml")))
    claims = "; make evidence builds that page" if study in ("evidence", "tuned") else ""
    require(os.path.isfile(path), "study", study, f"a study ({names}) or the path of a .yaml file{claims}")
    taken = "a name for a study: results/evidence, results/tuned, results/bench and results/explore hold something else"
    require(path.stem not in TAKEN, "study", path.stem, taken)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise BadInput(f"study: {with_remedy(error)}") from None
    except Exception as error:  # YAML's constructors raise whatever their argument happens to cause
        raise BadInput(one_line(f"study: {path.name} cannot be read as YAML: {error}")) from None
    require(isinstance(values, dict), "study", path.name, "a YAML mapping of settings")
    return make_study(path.stem, values | ({} if precision is None else {"precision": precision}))


def make_study(name: str, values: dict[str, Any]) -> Study:
    """The checked study of values as a study file has them. Raises BadInput for whatever is not allowed."""
    require(NAME.fullmatch(name) is not None, "study", name, NAME_ALLOWED)
    known("study", values, (*OF_STUDY, "arms", "schedules", "grid", *DEFAULTS))
    of_study = {k: values.get(k, getattr(Study, k)) for k in OF_STUDY}
    top = {k: v for k, v in values.items() if k in DEFAULTS}
    for k, value in (of_study | top).items():  # also where every arm has a value of its own
        if k in CHECKS:
            check(k, k, value)
        elif k in HYPER:
            hyper(k, k, value, tuple(value) if isinstance(value, dict) else (), of_study["updates"])
    of_study |= {"seeds": check_seeds(of_study["seeds"]), "measures": tuple(of_study["measures"])}
    columns, thin = (*MEASURED, *columns_of(of_study["measures"])), of_study["every_tenth"]
    require(is_some_of(columns, thin), "every_tenth", thin, f"a list of distinct {', '.join(columns)}")
    seen = of_study["stop_after"] is None or "val_accuracy" not in thin
    require(seen, "every_tenth", thin, "free of val_accuracy, by which stop_after tells that 99 % was kept")
    of_study["every_tenth"] = tuple(thin)
    grid = values.get("grid")
    arms = tuple(make_arm(n, own, top, grid, of_study["updates"]) for n, own in arms_given(values).items())
    grid_of("grid", grid, {o for arm in arms for o in arm.settings.operations})  # also where every arm has its own
    return Study(name, arms, **of_study)


def arms_given(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the study file says of each arm, from `arms` or from the list `schedules`."""
    arms: Any = values.get("arms")
    if "schedules" in values:
        names = values["schedules"]
        instead = "a list of arms' names; what differs between arms stands in arms: {name: {batch_size: 128}}"
        require(isinstance(names, list) and "arms" not in values, "schedules", names, instead)
        for name in names:
            require(isinstance(name, str), "schedules", name, NAME_ALLOWED)
        require(len(set(names)) == len(names), "schedules", names, "free of repetitions")
        arms = dict.fromkeys(names)
    require(isinstance(arms, dict) and len(arms) > 0, "arms", arms, "a non-empty mapping of arms")
    for name, own in arms.items():
        require(isinstance(name, str) and NAME.fullmatch(name) is not None, "arms", name, NAME_ALLOWED)
        require(isinstance(own, dict | None), f"arms.{name}", own, "a mapping of settings")
        choice = f"baseline, a schedule ({', '.join(SCHEDULES)}), or an arm with settings of its own"
        require(bool(own) or name == "baseline" or name in SCHEDULES, "arms", name, choice)
    return {name: own or {} for name, own in arms.items()}


def make_arm(name: str, own: dict[str, Any], top: dict[str, Any], grid: Any, updates: int) -> Arm:
    """The checked arm: its own settings go before the grid's, and these before those at the study's top."""
    known(f"arms.{name}", own, (*DEFAULTS, "grid"))
    own = ({"batch_size": {"schedule": name}} if name in SCHEDULES else {}) | own
    given = {k: own.get(k, top.get(k, default)) for k, default in DEFAULTS.items()}
    where = {k: f"arms.{name}.{k}" if k in own else k for k in DEFAULTS}
    for k in given.keys() & CHECKS:
        check(where[k], k, given[k])
    width, heads = given["width"], given["heads"]
    odd, words = "heads", f"a divisor of the width {width}"
    if width != DEFAULTS["width"]:
        odd, words = "width", f"a multiple of the {heads} heads"
    require(width % heads == 0, where[odd], given[odd], words)
    operations = given["operations"] = tuple(given["operations"])
    given |= {k: hyper(where[k], k, given[k], operations, updates) for k in HYPER}
    for o in operations:
        fraction, pairs = given["train_fraction"], count_pairs(o, given["modulus"])
        enough = f"enough for a pair in either set of {o}, which has {pairs} pairs"
        require(0 < count_train(o, given["modulus"], fraction) < pairs, where["train_fraction"], fraction, enough)
    field = f"arms.{name}.grid" if "grid" in own else "grid"
    mappings = grid_of(field, own["grid"], operations) if "grid" in own else grid_of(field, grid, OPERATIONS)
    for k in (k for mapping in mappings for k in mapping if "grid" in own):
        require(k == "operations" or k not in own, field, k, "for a grid: the arm gives it itself")
    arm = Arm(name, Settings(**given), cells_of(field, mappings, own, operations))
    for k in HYPER:
        check_courses(where[k], arm, k, updates)
    return arm


def check_courses(field: str, arm: Arm, name: str, updates: int) -> None:
    """Raise BadInput where a hyper-parameter's schedule has no value at an update, or leaves what is allowed."""
    low, high, words = ALLOWED[name]
    try:
        courses = arm.courses(name, updates)
    except ValueError as error:
        raise BadInput(one_line(f"{field}: {error}")) from None
    for course in courses.values():
        bad = ~((low <= course) & (course <= high))
        at = int(bad.argmax())
        allowed = f"allowed, at update {BLOCK * (at + 1):,} of its course: {words}"
        require(not bad.any(), field, course[at].item(), allowed)


def grid_of(field: str, grid: Any, used: Collection[str]) -> Grid:
    """The grid's mappings, checked, that name no operations but those `used`; without a grid, none."""
    mappings = [] if grid is None else grid if isinstance(grid, list) else [grid]
    crossed = f"a setting that can vary within a stack ({', '.join(CROSSED)}); what else varies is an arm"
    for mapping in mappings:
        good = isinstance(mapping, dict) and len(mapping) > 0
        require(good, field, mapping, "a mapping of settings to lists of numbers")
        for k, values in mapping.items():
            require(k in (*CROSSED, "operations"), field, k, crossed)
            if k == "operations":
                check(f"{field}.{k}", k, values)
                for o in values:
                    require(o in used, f"{field}.{k}", o, f"an operation that it is for ({', '.join(sorted(used))})")
                continue
            require(isinstance(values, list) and len(values) > 0, f"{field}.{k}", values, "a non-empty list")
            for value in values:
                require(fits(k, value), f"{field}.{k}", value, ALLOWED[k][2].split(",")[0])
    return mappings


def cells_of(field: str, mappings: Grid, own: Collection[str], operations: tuple[str, ...]) -> tuple[Cell, ...]:
    """The arm's cells: the mappings' products, without what the arm gives itself; equal ones are one."""
    found: dict[tuple[tuple[str, float], ...], set[str]] = {}
    for mapping in mappings or [{}]:
        crossed = [k for k in CROSSED if k in mapping and k not in own]
        for values in product(*(mapping[k] for k in crossed)):
            cell = tuple((k, float(f"{v:.12g}")) for k, v in zip(crossed, values, strict=True))  # as its name has it
            found.setdefault(cell, set()).update(mapping.get("operations", operations))
    of_arm = [Cell(values, tuple(o for o in operations if o in named)) for values, named in found.items()]
    cells = tuple(cell for cell in of_arm if cell.operations)
    for o in operations:
        require(any(o in c.operations for c in cells), field, o, "an operation that any mapping of it has cells for")
    return cells
