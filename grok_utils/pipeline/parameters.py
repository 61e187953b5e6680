"""Study files and the parameters of a run: read, and checked before any work is done."""

import dataclasses
import math
import os
import re
from pathlib import Path
from typing import Any

import yaml

from grok_utils.engine.machine import on_cuda, require_fit
from grok_utils.errors import BadInput, one_line, require, with_remedy
from grok_utils.schedules import BLOCK, CONTROLS, RATE_FACTORS, SCHEDULES
from grok_utils.store.files import ROOT
from grok_utils.studies import Arm, Run, Study
from grok_utils.tasks import OPERATIONS, count_pairs, count_train

STUDIES = ROOT / "notebooks" / "studies"
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("float32", "tf32", "bf16")
CPU_PRECISIONS = "available on a CPU (allowed: float32, bf16)"
NAME = re.compile(r"\w[\w.-]{0,49}")  # of a study or an arm: the name of a folder or file, and a word of a command line
NAME_ALLOWED = "a name of at most 50 letters, digits, _ . and -, which . and - do not begin"


class _Loader(yaml.SafeLoader):
    """YAML's plain types only, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        merge = "tag:yaml.org,2002:merge"
        names = [self.construct_object(name, deep=True) for name, _ in node.value if name.tag != merge]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


def load_study(study: str, **overrides: Any) -> Study:
    """The checked study of a name in notebooks/studies, or of a path to a YAML file; `overrides` replace its settings.

    Raises BadInput with one line for whatever is not allowed.
    """
    require(isinstance(study, str) and study != "", "study", study, "a study's name or the path of a .yaml file")
    path = Path(study) if study.endswith((".yaml", ".yml")) else STUDIES / f"{study}.yaml"
    known = ", ".join(sorted(p.stem for p in STUDIES.glob("*.yaml")))
    claims = "; make evidence builds the page of the claims" if study == "evidence" else ""
    require(os.path.isfile(path), "study", study, f"a study ({known}) or the path of a .yaml file{claims}")
    taken = "a name for a study: results/evidence, results/bench and results/explore hold something else"
    require(path.stem not in ("evidence", "bench", "explore"), "study", path.stem, taken)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise BadInput(f"study: {with_remedy(error)}") from None
    except Exception as error:  # YAML's constructors raise whatever their argument happens to cause
        raise BadInput(one_line(f"study: {path.name} cannot be read as YAML: {error}")) from None
    require(isinstance(values, dict), "study", path.name, "a YAML mapping of settings")
    return make_study(path.stem, values | {k: v for k, v in overrides.items() if v is not None})


def make_study(name: str, settings: dict[str, Any]) -> Study:
    """The checked study of settings as a study file has them. Raises BadInput for whatever is not allowed."""
    require(NAME.fullmatch(name) is not None, "study", name, NAME_ALLOWED)
    allowed = [f.name for f in dataclasses.fields(Study) if f.name != "name"]
    for setting in settings:
        require(setting in allowed, "study", setting, f"a setting (allowed: {', '.join(allowed)})")
    require("schedules" in settings, "schedules", None, "given; a study names its arms")
    values = settings | {"schedules": _arms(settings["schedules"])}
    for setting in {"seeds", "operations"} & set(values):
        require(isinstance(values[setting], list), setting, values[setting], "a list")
        values[setting] = tuple(values[setting])
    return _checked(Study(name=name, **values))


def _arms(schedules: Any) -> tuple[Arm, ...]:
    """Arms from a list of schedule names, or from a mapping of arm names to what `Arm` holds."""
    if isinstance(schedules, list):
        for name in schedules:
            require(isinstance(name, str), "schedules", name, NAME_ALLOWED)
        require(len(set(schedules)) == len(schedules), "schedules", schedules, "free of repetitions")
        schedules = dict.fromkeys(schedules)
    good = isinstance(schedules, dict) and len(schedules) > 0
    require(good, "schedules", schedules, "a non-empty list or mapping of arms")
    allowed = [f.name for f in dataclasses.fields(Arm) if f.name != "name"]
    arms = []
    for name, spec in schedules.items():
        require(isinstance(name, str) and NAME.fullmatch(name) is not None, "schedules", name, NAME_ALLOWED)
        require(isinstance(spec, dict | None), f"schedules.{name}", spec, "a mapping")
        spec = {"schedule": name} | (spec or {})
        for k in spec:
            require(k in allowed, f"schedules.{name}", k, f"a setting of an arm (allowed: {', '.join(allowed)})")
        arms.append(Arm(name=name, **spec))
    return tuple(arms)


def _is_whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _is_number(value: Any, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high  # false of NaN


def _is_prime(p: int) -> bool:
    return p > 1 and all(p % d for d in range(2, math.isqrt(p) + 1))


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """`seeds` as a sorted tuple; BadInput unless it is a non-empty list of distinct whole numbers from 0 on."""
    good = isinstance(seeds, list | tuple) and len(seeds) > 0 and all(_is_whole(s, 0, 2**31 - 1) for s in seeds)
    seeds = list(seeds) if isinstance(seeds, tuple) else seeds
    require(good, "seeds", seeds, "a non-empty list of whole numbers from 0 to 2147483647")
    require(len(set(seeds)) == len(seeds), "seeds", seeds, "free of repetitions")
    return tuple(sorted(seeds))


def _checked(s: Study) -> Study:
    """The study itself, once every setting is known to be allowed."""
    check_seeds(s.seeds)
    require(isinstance(s.title, str) and s.title.isprintable(), "title", s.title, "one line of text")
    require(_is_whole(s.modulus, 2, 1999) and _is_prime(s.modulus), "modulus", s.modulus, "a prime from 2 to 1999")
    whole = f"a whole number from {BLOCK} to 1000000 that is a multiple of {BLOCK}, the log interval"
    require(_is_whole(s.updates, BLOCK, 10**6) and s.updates % BLOCK == 0, "updates", s.updates, whole)
    length = s.schedule_length
    good = length is None or (_is_whole(length, BLOCK, 10**6) and length % BLOCK == 0)
    require(good, "schedule_length", length, whole)
    require(_is_whole(s.hi, 1, 2**31 - 1), "hi", s.hi, "a batch size, a whole number from 1 to 2147483647")
    require(_is_whole(s.lo, 1, s.hi), "lo", s.lo, f"a batch size, a whole number from 1 to hi = {s.hi}")
    require(_is_number(s.learning_rate, 0, 1), "learning_rate", s.learning_rate, "a number from 0 to 1 (write 1.0e-3)")
    good = isinstance(s.rate_factor, str) and s.rate_factor in RATE_FACTORS
    require(good, "rate_factor", s.rate_factor, f"one of {', '.join(RATE_FACTORS)}")
    require(_is_number(s.weight_decay, 0, 100), "weight_decay", s.weight_decay, "a number from 0 to 100")
    require(s.precision in PRECISIONS, "precision", s.precision, f"one of {', '.join(PRECISIONS)}")
    fraction = s.train_fraction
    require(_is_number(fraction, 0, 1) and 0 < fraction < 1, "train_fraction", fraction, "a number between 0 and 1")
    require(len(s.operations) > 0, "operations", list(s.operations), "a non-empty list")
    for op in s.operations:
        require(isinstance(op, str) and op in OPERATIONS, "operation", op, f"one of {', '.join(OPERATIONS)}")
        pairs = count_pairs(op, s.modulus)
        split = f"a fraction that leaves a training and a validation pair of the {pairs} of {op}"
        require(1 <= count_train(op, s.modulus, fraction) < pairs, "train_fraction", fraction, split)
    require(len(set(s.operations)) == len(s.operations), "operations", list(s.operations), "free of repetitions")
    for arm in s.schedules:
        _check_arm(arm, s)
    return s


def _check_arm(a: Arm, s: Study) -> None:
    where = f"schedules.{a.name}"
    known = (*SCHEDULES, "constant")
    require(a.schedule in known, where, a.schedule, f"a schedule (known: {', '.join(known)})")
    constant_size = a.schedule == "constant"
    size = (
        f"a batch size, a whole number from 1 to hi = {s.hi}" if constant_size else "for this schedule, only `constant`"
    )
    good = _is_whole(a.batch_size, 1, s.hi) if constant_size else a.batch_size is None
    require(good, f"{where}.batch_size", a.batch_size, size)
    require(a.control in (None, *CONTROLS), f"{where}.control", a.control, f"one of {', '.join(CONTROLS)}")
    good = a.window is None or (_is_whole(a.window, BLOCK, s.updates) and a.window % BLOCK == 0)
    require(good, f"{where}.window", a.window, f"a multiple of {BLOCK} from {BLOCK} to updates = {s.updates}")
    require(_is_whole(a.order, 0, 2**31 - 1), f"{where}.order", a.order, "a whole number from 0")
    a.batch_sizes(s)


def make_run(
    study: str,
    schedule: str,
    seeds: list[int],
    results: str = "results",
    device: str = "auto",
    threads: int = 1,
    precision: str | None = None,
) -> Run:
    """A checked run; `precision` replaces the study's. Raises BadInput with one line for whatever is not allowed."""
    loaded = load_study(study, precision=precision)
    _check_device(device)
    require(loaded.precision != "tf32" or device != "cpu", "precision", "tf32", CPU_PRECISIONS)
    require(_is_whole(threads, 1, 1024), "threads", threads, "a whole number from 1 to 1024")
    good = isinstance(results, str | Path) and str(results) != "" and "\0" not in str(results)
    require(good, "results", results, "the path of a folder")
    return Run(loaded, loaded.arm(schedule), check_seeds(seeds), Path(results), device, threads)


def _check_device(device: Any) -> None:
    require(device in DEVICES, "device", device, f"one of {', '.join(DEVICES)}")


def on_this_machine(run: Run) -> Run:
    """The run itself, once this machine is known to have the device, precision and memory; else raises BadInput."""
    _check_device(run.device)
    available = "available here, PyTorch sees no CUDA GPU (allowed: auto, cpu)"
    require(run.device != "cuda" or on_cuda(run.device), "device", run.device, available)
    require(run.study.precision != "tf32" or on_cuda(run.device), "precision", "tf32", CPU_PRECISIONS)
    require_fit(run)
    return run


def run_from_parameters(namespace: dict[str, Any]) -> Run:
    """The run that a notebook's parameters cell describes; `namespace` is the notebook's `globals()`.

    papermill only warns of a parameter that the notebook does not have, so a public name that is no parameter of
    `make_run` raises BadInput here, the first time: later the notebook's own names are there too.
    """
    ours = {"In", "Out", "exit", "quit", "open", "get_ipython", "run_from_parameters"}
    allowed = [p for p in make_run.__annotations__ if p != "return"]
    if "_first_time" not in namespace:
        for name in namespace:
            good = name.startswith("_") or name in ours or name in allowed
            require(good, "parameter", name, f"known (allowed: {', '.join(allowed)})")
    for name in ("study", "schedule", "seeds"):
        require(name in namespace, "parameter", name, "given")
    run = on_this_machine(make_run(**{k: v for k, v in namespace.items() if k in allowed}))
    namespace["_first_time"] = False
    return run
