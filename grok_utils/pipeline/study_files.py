"""A study file, read and checked: every bad value is told in one line before any work."""

import dataclasses
import math
import os
import re
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from grok_utils.errors import BadInput, one_line, require, with_remedy
from grok_utils.schedules import BLOCK, CONTROLS, SCHEDULES
from grok_utils.store.files import ROOT
from grok_utils.store.records import MEASURED
from grok_utils.studies import BATCH_RANGE, DEFAULTS, HYPER, Arm, Cell, Follows, Scheduled, Settings, Study
from grok_utils.tasks import OPERATIONS, count_pairs, count_train

STUDIES = ROOT / "notebooks" / "studies"
PRECISIONS = ("float32", "tf32", "bf16")
NAME = re.compile(r"\w[\w.-]{0,49}")  # of a study or an arm: the name of a folder or file, and a word of a command line
NAME_ALLOWED = "a name of at most 50 letters, digits, _ . and -, which . and - do not begin"
TAKEN = ("evidence", "bench", "explore")  # folders of results that are no study's
RATE = "a number from 0 to 1 (write 1.0e-3), a schedule, one that follows the batch size, or any of these by operation"
ALLOWED = {  # the least and the greatest value, and in words
    "batch_size": (1, 2**31 - 1, "a whole number from 1 to 2147483647, all, or a schedule"),
    "learning_rate": (0, 1, RATE),
    "weight_decay": (0, 100, RATE.replace("to 1 (write 1.0e-3)", "to 100")),
    "beta1": (0, math.nextafter(1, 0), RATE.replace("to 1 (write 1.0e-3)", "to below 1")),
    "beta2": (0, math.nextafter(1, 0), RATE.replace("to 1 (write 1.0e-3)", "to below 1")),
}
CROSSED = HYPER[1:]
RETIRED = {
    "rate_factor": "write learning_rate: {follows: batch_size, value: 1.0e-3, at: 512, power: 0.5}",
    "schedule_length": "write batch_size: {schedule: linear, length: 7500} at each arm",
    "lo": "write batch_size: {schedule: linear, lo: 32, hi: 512} at each arm",
    "hi": "write batch_size: {schedule: linear, lo: 32, hi: 512} at each arm",
}
OF_STUDY = ("title", "seeds", "updates", "every_tenth")


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
    path = Path(study) if study.endswith((".yaml", ".yml")) else STUDIES / f"{study}.yaml"
    known = ", ".join(sorted(p.stem for p in STUDIES.glob("*.yaml")))
    claims = "; make evidence builds the page of the claims" if study == "evidence" else ""
    require(os.path.isfile(path), "study", study, f"a study ({known}) or the path of a .yaml file{claims}")
    taken = "a name for a study: results/evidence, results/bench and results/explore hold something else"
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
    for setting in values:
        known(setting, "study", (*OF_STUDY, "arms", "schedules", "grid", *DEFAULTS))
    updates = values.get("updates", Study.updates)
    check_updates("updates", updates)
    title, tenth = values.get("title", ""), values.get("every_tenth", [])
    require(isinstance(title, str) and title.isprintable(), "title", title, "one line of text")
    require(
        isinstance(tenth, list) and set(tenth) <= set(MEASURED),
        "every_tenth",
        tenth,
        f"a list of {', '.join(MEASURED)}",
    )
    top = {k: v for k, v in values.items() if k in DEFAULTS}
    arms = tuple(make_arm(n, spec, top, values.get("grid"), updates) for n, spec in arms_given(values).items())
    used = {o for arm in arms for o in arm.settings.operations}
    for mapping in grid_of("grid", values.get("grid")):
        strange = [o for o in mapping.get("operations", []) if o not in used]
        require(not strange, "grid.operations", strange, f"operations of the study ({', '.join(sorted(used))})")
    return Study(name, arms, title, check_seeds(values.get("seeds", list(Study.seeds))), updates, tuple(tenth))


def known(setting: Any, field: str, allowed: tuple[str, ...]) -> None:
    """Raise BadInput unless `setting` is one of `allowed`; of one that is retired, with what to write instead."""
    if isinstance(setting, str) and setting in RETIRED:
        raise BadInput(f"{field}: {setting} is no setting any more: {RETIRED[setting]}")
    require(setting in allowed, field, setting, f"a setting (allowed: {', '.join(allowed)})")


def arms_given(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the study file says of each arm, from `arms` or from the list `schedules`."""
    if "schedules" in values:
        names = values["schedules"]
        instead = "a list of arms' names; what differs between arms stands in arms: {name: {batch_size: 128}}"
        require(isinstance(names, list) and "arms" not in values, "schedules", names, instead)
        for name in names:
            require(isinstance(name, str), "schedules", name, NAME_ALLOWED)
        require(len(set(names)) == len(names), "schedules", names, "free of repetitions")
        values = {"arms": dict.fromkeys(names)}
    arms = values.get("arms")
    require(isinstance(arms, dict) and len(arms) > 0, "arms", arms, "a non-empty mapping of arms")
    for name, spec in arms.items():
        require(isinstance(name, str) and NAME.fullmatch(name) is not None, "arms", name, NAME_ALLOWED)
        require(isinstance(spec, dict | None), f"arms.{name}", spec, "a mapping of settings")
        if name not in SCHEDULES and not spec and name != "baseline":
            choice = f"baseline, a schedule ({', '.join(SCHEDULES)}), or an arm with settings of its own"
            require(False, "arms", name, choice)
    return {name: spec or {} for name, spec in arms.items()}


def make_arm(name: str, spec: dict[str, Any], top: dict[str, Any], grid: Any, updates: int) -> Arm:
    """The checked arm: its own settings go before the grid's, and these before those at the study's top."""
    for setting in spec:
        known(setting, f"arms.{name}", (*DEFAULTS, "grid"))
    own = ({"batch_size": {"schedule": name}} if name in SCHEDULES else {}) | spec
    where = {k: f"arms.{name}.{k}" if k in own else k for k in DEFAULTS}
    given = DEFAULTS | top | {k: v for k, v in own.items() if k != "grid"}
    operations = given["operations"]
    good = (
        isinstance(operations, list | tuple) and len(operations) > 0 and len({*map(str, operations)}) == len(operations)
    )
    require(good, where["operations"], operations, f"a non-empty list of distinct {', '.join(OPERATIONS)}")
    for o in operations:
        require(isinstance(o, str) and o in OPERATIONS, where["operations"], o, f"one of {', '.join(OPERATIONS)}")
    given["operations"] = tuple(operations)
    given |= {k: hyper(where[k], k, given[k], given["operations"], updates) for k in HYPER}
    settings = check_settings(Settings(**given), where)
    field = f"arms.{name}.grid" if "grid" in own else "grid"
    mappings = grid_of(field, own.get("grid", grid))
    if "grid" in own:
        for k in set(own) & {k for mapping in mappings for k in mapping}:
            require(k == "operations", field, k, "for a grid: the arm gives it itself")
    arm = Arm(name, settings, cells_of(field, mappings, set(own), settings.operations, updates))
    low = {k: ALLOWED[k][0] for k in HYPER}
    for k in HYPER:  # a schedule may leave what is allowed
        for (_, _), course in arm.courses(k, updates).items():
            bad = ~((low[k] <= course) & (course <= ALLOWED[k][1]))
            if bad.any():
                at, value = BLOCK * (int(bad.argmax()) + 1), course[bad.argmax()]
                require(False, where[k], value.item(), f"allowed, at update {at:,} of its course: {ALLOWED[k][2]}")
    return arm


def grid_of(field: str, grid: Any) -> list[dict[str, Any]]:
    """The grid's mappings of settings to lists of numbers, checked; without a grid, none."""
    mappings = [] if grid is None else grid if isinstance(grid, list) else [grid]
    for mapping in mappings:
        require(
            isinstance(mapping, dict) and len(mapping) > 0, field, mapping, "a mapping of settings to lists of numbers"
        )
        for k, values in mapping.items():
            crossed = f"a setting that can vary within a stack ({', '.join(CROSSED)}); what else varies is an arm"
            require(k in (*CROSSED, "operations"), field, k, crossed)
            require(isinstance(values, list) and len(values) > 0, f"{field}.{k}", values, "a non-empty list")
            for value in values if k in CROSSED else []:
                low, high, words = ALLOWED[k]
                require(is_number(value, low, high), f"{field}.{k}", value, words.split(",")[0])
    return mappings


def cells_of(
    field: str, mappings: list[dict[str, Any]], own: set[str], operations: tuple[str, ...], updates: int
) -> tuple[Cell, ...]:
    """The arm's cells: the mappings' products, without what the arm gives itself; equal ones are one."""
    found: dict[tuple[tuple[str, float], ...], set[str]] = {}
    for mapping in mappings or [{}]:
        crossed = [k for k in CROSSED if k in mapping and k not in own]
        for values in product(*(mapping[k] for k in crossed)):
            cell = tuple((k, float(f"{v:.12g}")) for k, v in zip(crossed, values, strict=True))  # as its name has it
            found.setdefault(cell, set()).update(set(mapping.get("operations", operations)) & set(operations))
    cells = [Cell(values, tuple(o for o in operations if o in of)) for values, of in found.items() if of]
    for o in operations:
        require(any(o in c.operations for c in cells), field, o, "an operation that the grid leaves without a cell")
    return tuple(cells)


def hyper(field: str, name: str, value: Any, operations: tuple[str, ...], updates: int) -> Any:
    """A hyper-parameter as `Settings` has it: a number, a course, or a course for each operation."""
    per_operation = isinstance(value, dict) and value and set(value) <= set(OPERATIONS)
    if per_operation and name != "batch_size":
        missing = [o for o in operations if o not in value]
        require(not missing, field, value, f"given for {', '.join(missing)}")
        return tuple((o, hyper(f"{field}.{o}", name, value[o], (), updates)) for o in operations)
    if isinstance(value, dict) and "follows" in value and name != "batch_size":
        return following(field, value, updates)
    if isinstance(value, dict):
        return scheduled(field, name, value, updates)
    low, high, words = ALLOWED[name]
    if name == "batch_size":
        require(value == "all" or is_whole(value, low, high), field, value, words)
        return value
    require(is_number(value, low, high), field, value, words)
    return float(value)


def scheduled(field: str, name: str, spec: dict[str, Any], updates: int) -> Scheduled:
    """The checked schedule of a hyper-parameter."""
    allowed = [f.name for f in dataclasses.fields(Scheduled)]
    for k in spec:
        require(k in allowed, field, k, f"a key of a schedule (allowed: {', '.join(allowed)})")
    low, high, words = ALLOWED[name]
    spec = (BATCH_RANGE if name == "batch_size" else {}) | spec
    require(
        isinstance(spec.get("schedule"), str) and spec["schedule"] in SCHEDULES,
        f"{field}.schedule",
        spec.get("schedule"),
        f"one of {', '.join(SCHEDULES)}",
    )
    for k in ("lo", "hi"):
        good = is_whole(spec.get(k), low, high) if name == "batch_size" else is_number(spec.get(k), low, high)
        require(good, f"{field}.{k}", spec.get(k), f"given: {words.split(',')[0]}")
    if spec.get("length") is not None:
        check_updates(f"{field}.length", spec["length"])
    control, window = spec.get("control"), spec.get("window")
    controls = ", ".join(CONTROLS)
    require(
        control is None or (isinstance(control, str) and control in CONTROLS),
        f"{field}.control",
        control,
        f"one of {controls}",
    )
    inside = f"a whole number of updates from 0 to {updates} that is a multiple of {BLOCK}, with a control ({controls})"
    good = window is None or (is_whole(window, 0, updates) and window % BLOCK == 0 and control is not None)
    require(good, f"{field}.window", window, inside)
    good = is_whole(spec.get("order", 0), 0, 2**31 - 1) and ("order" not in spec or control == "shuffle")
    require(good, f"{field}.order", spec.get("order"), "a whole number from 0 on, with control: shuffle")
    return Scheduled(**spec)


def following(field: str, spec: dict[str, Any], updates: int) -> Follows:
    """The checked course that follows batch sizes."""
    allowed = ("follows", "value", "at", "power")
    for k in spec:
        require(k in allowed, field, k, f"a key of what follows the batch size (allowed: {', '.join(allowed)})")
    for k in allowed[1:]:
        low, high = {"value": (0, 100), "at": (1e-9, 2**31), "power": (-10, 10)}[k]
        require(
            is_number(spec.get(k), low, high), f"{field}.{k}", spec.get(k), f"given: a number from {low:g} to {high:g}"
        )
    of = spec["follows"]
    require(of == "batch_size" or isinstance(of, dict), f"{field}.follows", of, "batch_size, or a schedule of it")
    other = scheduled(f"{field}.follows", "batch_size", of, updates) if isinstance(of, dict) else None
    return Follows(float(spec["value"]), float(spec["at"]), float(spec["power"]), other)


def check_settings(s: Settings, where: dict[str, str]) -> Settings:
    """The settings themselves, once those that are no course are known to be allowed; `where` each was given."""
    good = is_whole(s.modulus, 2, 1999) and all(s.modulus % d for d in range(2, math.isqrt(s.modulus) + 1))
    require(good, where["modulus"], s.modulus, "a prime from 2 to 1999")
    require(s.precision in PRECISIONS, where["precision"], s.precision, f"one of {', '.join(PRECISIONS)}")
    fraction = s.train_fraction
    good = is_number(fraction, 0, 1) and 0 < fraction < 1
    require(good, where["train_fraction"], fraction, "a number between 0 and 1")
    for o in s.operations:
        n, pairs = count_train(o, s.modulus, fraction), count_pairs(o, s.modulus)
        require(
            0 < n < pairs,
            where["train_fraction"],
            fraction,
            f"enough for a pair in either set of {o}, which has {pairs} pairs",
        )
    return s


def check_updates(field: str, updates: Any) -> None:
    """Raise BadInput unless it is a whole number of blocks."""
    whole = f"a whole number from {BLOCK} to 1000000 that is a multiple of {BLOCK}, the log interval"
    require(is_whole(updates, BLOCK, 10**6) and updates % BLOCK == 0, field, updates, whole)


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """`seeds`, a list or such as 300..302, sorted; BadInput unless they are distinct whole numbers from 0 on."""
    shown = seeds
    if isinstance(seeds, str) and (found := re.fullmatch(r"(\d{1,10})\.\.(\d{1,10})", seeds)):
        first, last = map(int, found.groups())
        seeds = list(range(first, last + 1)) if last - first < 10**6 else []
    good = isinstance(seeds, list | tuple) and len(seeds) > 0 and all(is_whole(s, 0, 2**31 - 1) for s in seeds)
    require(good, "seeds", shown, "a non-empty list of whole numbers from 0 to 2147483647, or such as 300..302")
    require(len(set(seeds)) == len(seeds), "seeds", shown, "free of repetitions")
    return tuple(sorted(seeds))


def is_whole(value: Any, low: int, high: int) -> bool:
    """Whether it is a whole number from `low` to `high`, and no truth value."""
    return type(value) is int and low <= value <= high


def is_number(value: Any, low: float, high: float) -> bool:
    """Whether it is a number from `low` to `high`; NaN is none, and no truth value is."""
    return type(value) in (int, float) and low <= value <= high
