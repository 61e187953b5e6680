"""What a setting's value may be, and a hyper-parameter's course: told in one line where it is not allowed."""

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from grok_utils.errors import BadInput, require
from grok_utils.measures import MEASURES
from grok_utils.optimizers import OPTIMIZERS
from grok_utils.schedules import BLOCK, CONTROLS, SCHEDULES
from grok_utils.studies import BATCH_RANGE, HYPER, Follows, Scheduled
from grok_utils.tasks import OPERATIONS

PRECISIONS = ("float32", "tf32", "bf16")
DEVICES = ("auto", "cpu", "cuda")


def is_whole(value: Any, low: float, high: float) -> bool:
    """Whether it is a whole number from `low` to `high`, and no truth value."""
    return type(value) is int and low <= value <= high


def is_number(value: Any, low: float, high: float) -> bool:
    """Whether it is a number from `low` to `high`; NaN is none, and no truth value is."""
    return type(value) in (int, float) and low <= value <= high


def is_some_of(names: Collection[str], value: Any, least: int = 0) -> bool:
    """Whether it is a list of distinct `names`, of `least` at least."""
    good = isinstance(value, list | tuple) and all(isinstance(v, str) and v in names for v in value)
    return good and least <= len(value) == len(set(value))


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {  # of each setting that is no hyper-parameter: what is allowed
    "title": (lambda v: isinstance(v, str) and v.isprintable(), "one line of text"),
    "updates": (
        lambda v: is_whole(v, BLOCK, 10**6) and v % BLOCK == 0,
        f"a whole number from {BLOCK} to 1000000 that is a multiple of {BLOCK}, the log interval",
    ),
    "stop_after": (
        lambda v: v is None or (is_whole(v, 10 * BLOCK, 10**6) and v % BLOCK == 0),
        f"a whole number of updates from {10 * BLOCK} to 1000000 that is a multiple of {BLOCK}",
    ),
    "measures": (lambda v: is_some_of(MEASURES, v), f"a list of distinct {', '.join(MEASURES)}"),
    "operations": (lambda v: is_some_of(OPERATIONS, v, 1), f"a non-empty list of distinct {', '.join(OPERATIONS)}"),
    "modulus": (lambda v: is_whole(v, 2, 1999) and all(v % d for d in range(2, v)), "a prime from 2 to 1999"),
    "train_fraction": (lambda v: is_number(v, 0, 1) and 0 < v < 1, "a number between 0 and 1"),
    "precision": (lambda v: v in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
    "optimizer": (lambda v: is_some_of(OPTIMIZERS, [v]), f"one of {', '.join(OPTIMIZERS)}"),
    "warm_up": (lambda v: is_whole(v, 0, 10**6), "a whole number of updates from 0 to 1000000"),
    "width": (lambda v: is_whole(v, 1, 1024), "a whole number from 1 to 1024"),
    "heads": (lambda v: is_whole(v, 1, 64), "a whole number from 1 to 64"),
    "blocks": (lambda v: is_whole(v, 1, 4), "a whole number from 1 to 4"),
    # What is no setting but a run's own.
    "device": (lambda v: v in DEVICES, f"one of {', '.join(DEVICES)}"),
    "threads": (lambda v: is_whole(v, 1, 1024), "a whole number from 1 to 1024"),
    "results": (lambda v: isinstance(v, str | Path) and str(v) != "" and "\0" not in str(v), "the path of a folder"),
}
RATE = "a number from 0 to {}, a schedule, one that follows the batch size, or any of these by operation"
BELOW_1 = (0, math.nextafter(1, 0), RATE.format("below 1"))
ALLOWED = {  # of each hyper-parameter the least and the greatest value, and in words
    "batch_size": (1, 2**31 - 1, "a whole number from 1 to 2147483647, all, or a schedule"),
    "learning_rate": (0, 1, RATE.format("1 (write 1.0e-3)")),
    "weight_decay": (0, 100, RATE.format("100")),
    "beta1": BELOW_1,
    "beta2": BELOW_1,
}
CROSSED = HYPER[1:]
RETIRED = {  # what to write instead
    "rate_factor": "learning_rate: {follows: batch_size, value: 1.0e-3, at: 512, power: 0.5}",
    "schedule_length": "batch_size: {schedule: linear, length: 7500} at each arm",
    **dict.fromkeys(("lo", "hi"), "batch_size: {schedule: linear, lo: 32, hi: 512} at each arm"),
    **dict.fromkeys(
        ("schedule", "control", "window", "order"), "batch_size: {schedule: linear, control: reverse, window: 2000}"
    ),
}


def known(field: str, given: Iterable[Any], allowed: Collection[str], what: str = "a setting") -> None:
    """Raise BadInput unless all that is `given` is `allowed`; of what is retired, with what to write instead."""
    for k in given:
        if k in RETIRED and what == "a setting":
            raise BadInput(f"{field}: {k} is no setting any more: write {RETIRED[k]}")
        require(k in allowed, field, k, f"{what} (allowed: {', '.join(allowed)})")


def check(field: str, name: str, value: Any) -> None:
    """Raise BadInput unless a setting, given in `field`, has a value that is allowed."""
    good, words = CHECKS[name]
    require(good(value), field, value, words)


def check_seeds(seeds: Any) -> tuple[int, ...]:
    """`seeds`, a list or such as 0,300..302, sorted; BadInput unless they are distinct whole numbers from 0 on."""
    shown = seeds
    if isinstance(seeds, str) and re.fullmatch(r"[0-9]{1,10}((,|\.\.)[0-9]{1,10})*", seeds):
        parts = [[int(number) for number in part.split("..")] for part in seeds.split(",")]
        few = all(len(ends) <= 2 and ends[-1] - ends[0] < 10**6 for ends in parts)
        seeds = [seed for ends in parts for seed in range(ends[0], ends[-1] + 1)] if few else []
    good = isinstance(seeds, list | tuple) and len(seeds) > 0 and all(is_whole(s, 0, 2**31 - 1) for s in seeds)
    require(good, "seeds", shown, "a non-empty list of whole numbers from 0 to 2147483647, or such as 300..302")
    require(len(set(seeds)) == len(seeds), "seeds", shown, "free of repetitions")
    return tuple(sorted(seeds))


def fits(name: str, value: Any) -> bool:
    """Whether it is a number that the hyper-parameter can be."""
    low, high, _ = ALLOWED[name]
    return (is_whole if name == "batch_size" else is_number)(value, low, high)


def hyper(field: str, name: str, value: Any, operations: tuple[str, ...], updates: int) -> Any:
    """A hyper-parameter as `Settings` has it: a number, a course, or a course for each of `operations`."""
    if isinstance(value, dict) and name == "batch_size":
        return scheduled(field, name, value, updates)
    if isinstance(value, dict) and operations and not OPERATIONS.keys().isdisjoint(value):
        known(field, value, OPERATIONS, "an operation")
        missing = [o for o in operations if o not in value]
        require(not missing, field, value, f"given for {', '.join(missing)}")
        return tuple((o, hyper(f"{field}.{o}", name, value[o], (), updates)) for o in operations)
    if isinstance(value, dict):
        return (following if "follows" in value else scheduled)(field, name, value, updates)
    require(fits(name, value) or (name == "batch_size" and value == "all"), field, value, ALLOWED[name][2])
    return value if name == "batch_size" else float(value)


def scheduled(field: str, name: str, given: dict[str, Any], updates: int) -> Scheduled:
    """The checked schedule of a hyper-parameter."""
    defaults = {f.name: None if f.default is dataclasses.MISSING else f.default for f in dataclasses.fields(Scheduled)}
    known(field, given, defaults, "a key of a schedule")
    of: dict[str, Any] = defaults | (BATCH_RANGE if name == "batch_size" else {}) | given
    control, window, controls = of["control"], of["window"], ", ".join(CONTROLS)
    inside = f"a whole number of updates from 0 to {updates} that is a multiple of {BLOCK}, with a control ({controls})"
    within = control is not None and is_whole(window, 0, updates) and window % BLOCK == 0
    shuffled = is_whole(of["order"], 0, 2**31 - 1) and ("order" not in given or control == "shuffle")
    number = f"given: {ALLOWED[name][2].split(',')[0]}"
    for k, good, words in (
        ("schedule", is_some_of(SCHEDULES, [of["schedule"]]), f"one of {', '.join(SCHEDULES)}"),
        ("lo", fits(name, of["lo"]), number),
        ("hi", fits(name, of["hi"]), number),
        ("control", control is None or is_some_of(CONTROLS, [control]), f"one of {controls}"),
        ("window", window is None or within, inside),
        ("order", shuffled, "a whole number from 0 on, with control: shuffle"),
    ):
        require(good, f"{field}.{k}", of[k], words)
    if of["length"] is not None:
        check(f"{field}.length", "updates", of["length"])
    return Scheduled(**of)


def following(field: str, name: str, given: dict[str, Any], updates: int) -> Follows:
    """The checked course of a hyper-parameter that follows batch sizes."""
    ranges = {"value": (0, 100), "at": (1e-9, 2**31), "power": (-10, 10)}
    known(field, given, ("follows", *ranges), "a key of what follows the batch size")
    for k, (low, high) in ranges.items():
        words = f"given: a number from {low:g} to {high:g}"
        require(is_number(given.get(k), low, high), f"{field}.{k}", given.get(k), words)
    of = given["follows"]
    require(of == "batch_size" or isinstance(of, dict), f"{field}.follows", of, "batch_size, or a schedule of it")
    other = scheduled(f"{field}.follows", "batch_size", of, updates) if isinstance(of, dict) else None
    return Follows(**{k: float(given[k]) for k in ranges}, follows=other)
