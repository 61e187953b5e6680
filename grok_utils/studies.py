"""A study: its arms, their cells and members, what each trains with, and by which values a run is known."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

from grok_utils import schedules
from grok_utils.errors import require
from grok_utils.tasks import OPERATIONS, Operation, Task, all_pairs, count_train, key, make_task

THRESHOLD = 0.99  # of the validation accuracy: a member whose accuracy exceeds it has grokked
HYPER = ("batch_size", "learning_rate", "weight_decay", "beta1", "beta2")
OfBlocks = Int64[np.ndarray, " blocks"] | Float64[np.ndarray, " blocks"]  # int64 of batch sizes
BATCH_RANGE: dict[str, Any] = {"lo": 32, "hi": 512}  # of a schedule of the batch size that says nothing else


@dataclass(frozen=True)
class Scheduled:
    """A course that goes from `lo` to `hi` by a schedule; a control replaces its values in [0, `window`]."""

    schedule: str
    lo: float
    hi: float
    length: int | None = None  # the schedule's T; None: as long as the run
    control: str | None = None  # reverse, shuffle or mean
    window: int | None = None  # in updates; None: all of them
    order: int = 0  # which of the shuffled orders

    def values(self, updates: int, whole: bool) -> OfBlocks:
        """The value of each block of 10 updates, truncated before its control where `whole`."""
        found = schedules.values(self.schedule, updates, self.lo, self.hi, self.length)
        found = found.astype(np.int64) if whole else found
        return schedules.controlled(found, self.control, self.window, self.order)


@dataclass(frozen=True)
class Follows:
    """A course that follows batch sizes B, block by block: `value` · (B / `at`) ^ `power`."""

    value: float
    at: float
    power: float
    follows: Scheduled | None = None  # None: the arm's own batch sizes


class Shape(NamedTuple):
    """The size of a decoder."""

    width: int  # of the residual stream
    heads: int
    blocks: int


Course = float | Literal["all"] | Scheduled | Follows
PerOperation = tuple[tuple[str, Course], ...]  # a course for each operation


@dataclass(frozen=True)
class Settings:
    """Every setting of an arm, and the only place where a default lives: the protocol's."""

    batch_size: Course = 512  # a whole number, a schedule, or all: every training pair at once, undrawn
    learning_rate: Course | PerOperation = 1e-3  # after the warm-up
    weight_decay: Course | PerOperation = 0.5  # decoupled, of every parameter
    beta1: Course | PerOperation = 0.9
    beta2: Course | PerOperation = 0.98
    operations: tuple[str, ...] = ("x_plus_y", "x_minus_y", "x_div_y", "permutation")
    modulus: int = 97
    train_fraction: float = 0.5
    precision: str = "float32"
    optimizer: str = "adamw"  # beta1 is the momentum of sgd and muon
    warm_up: int = 50  # updates over which the learning rate rises from 0
    width: int = 128  # of the residual stream, a multiple of heads
    heads: int = 4
    blocks: int = 2

    @property
    def shape(self) -> Shape:
        """The size of the arm's decoders."""
        return Shape(self.width, self.heads, self.blocks)


PROTOCOL = Settings()
DEFAULTS = vars(PROTOCOL)


class Cell(NamedTuple):
    """A cell of a grid: values that replace its arm's, for some of the arm's operations."""

    values: tuple[tuple[str, float], ...]
    operations: tuple[str, ...]

    @property
    def name(self) -> str:
        """Such as `learning_rate=0.002 weight_decay=1`; empty without a grid."""
        return " ".join(f"{name}={value:.12g}" for name, value in self.values)


class Member(NamedTuple):
    """One model of a run."""

    operation: str
    cell: Cell
    seed: int


@dataclass(frozen=True)
class Arm:
    """An arm of a study: a name, its settings, and its cells (one without values where there is no grid)."""

    name: str
    settings: Settings
    cells: tuple[Cell, ...]

    def members(self, seeds: tuple[int, ...]) -> list[Member]:
        """Operation by operation, within it cell by cell, within it seed by seed."""
        places = [(o, cell) for o in self.settings.operations for cell in self.cells if o in cell.operations]
        return [Member(o, cell, seed) for o, cell in places for seed in seeds]

    def course(self, name: str, updates: int, operation: str, cell: Cell) -> OfBlocks:
        """A hyper-parameter's value in each block. Raises ValueError where a schedule gives no finite value."""
        value = dict(cell.values).get(name, getattr(self.settings, name))
        if isinstance(value, tuple):
            value = dict(value)[operation]
        blocks, whole = updates // schedules.BLOCK, name == "batch_size"
        if isinstance(value, Scheduled):
            return value.values(updates, whole)
        if isinstance(value, Follows):
            of = value.follows
            sizes = of.values(updates, True) if of else self.course("batch_size", updates, operation, cell)
            return value.value * (sizes / value.at) ** value.power
        if value == "all":
            value = count_train(operation, self.settings.modulus, self.settings.train_fraction)
        return np.full(blocks, value, np.int64 if whole else np.float64)

    def courses(self, name: str, updates: int) -> dict[tuple[str, Cell], OfBlocks]:
        """A hyper-parameter's `course` for each operation and cell."""
        return {(m.operation, m.cell): self.course(name, updates, m.operation, m.cell) for m in self.members((0,))}

    def identity(self, updates: int) -> dict[str, Any]:
        """What decides the numbers of the arm's records, by value: a dictionary of numbers and digests, as JSON types.

        An operation is its table. A hyper-parameter is a number where it is one for every member and block, else the
        digest of all their values, to 12 digits. Names of functions are no part of it.
        """
        s = self.settings
        found = {name: value for name, value in vars(s).items() if name not in HYPER} | {"updates": updates}
        found["operations"] = {o: _table(o, OPERATIONS[o], s.modulus) for o in s.operations}
        if any(cell.values for cell in self.cells):
            found["cells"] = {o: sorted(c.name for c in self.cells if o in c.operations) for o in s.operations}
        for name in HYPER:
            courses = {m: _written(of) for m, of in self.courses(name, updates).items()}
            numbers = {v for of in courses.values() for v in of}
            lines = sorted(f"{o} {cell.name}: {','.join(of)}" for (o, cell), of in courses.items())
            number = int if name == "batch_size" else float
            found[name] = number(numbers.pop()) if len(numbers) == 1 else _digest("\n".join(lines).encode())
        return found | ({"batch_size": "all"} if s.batch_size == "all" else {})


def _written(course: OfBlocks) -> list[str]:
    first = course[:1]
    return [f"{v:.12g}" for v in first] * len(course) if (course == first).all() else [f"{v:.12g}" for v in course]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@cache
def _table(name: str, operation: Operation, modulus: int) -> str:
    return _digest(all_pairs(name, modulus).numpy().tobytes())


def unlike(recorded: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The components in which two identities differ; one that is absent has its default."""
    names = sorted(recorded.keys() | expected.keys())
    return [n for n in names if recorded.get(n, DEFAULTS.get(n)) != expected.get(n, DEFAULTS.get(n))]


@dataclass(frozen=True)
class Study:
    """A study: its arms with all their settings, and what is one for all of them."""

    name: str  # the study file's name; its results are in results/<name>
    arms: tuple[Arm, ...]
    title: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    updates: int = 7500
    every_tenth: tuple[str, ...] = ()  # measured columns that records keep at every tenth log only
    measures: tuple[str, ...] = ()  # of `measures.MEASURES`, whose columns records have as well
    stop_after: int | None = None  # updates: a run ends when all its members have kept 99 % for so long, or diverged

    @property
    def reference(self) -> str:
        """The arm that the others are compared with: `baseline`, or the first arm of a study that has none."""
        names = [a.name for a in self.arms]
        return "baseline" if "baseline" in names else names[0]

    @property
    def operations(self) -> tuple[str, ...]:
        """The operations of any arm, in their order."""
        return tuple(dict.fromkeys(o for a in self.arms for o in a.settings.operations))

    def arm(self, name: str) -> Arm:
        """The arm called `name`; BadInput where the study has none."""
        arms = {a.name: a for a in self.arms}
        known = f"an arm of study {self.name} ({', '.join(arms)})"
        require(isinstance(name, str) and name in arms, "schedule", name, known)
        return arms[name]

    def varies(self, name: str) -> bool:
        """Whether a hyper-parameter is anywhere other than its default throughout."""
        of_arms = any(getattr(a.settings, name) != DEFAULTS[name] for a in self.arms)
        return of_arms or any(name in dict(c.values) for a in self.arms for c in a.cells)


@dataclass(frozen=True)
class Courses:
    """What the members of a stack train with, block by block.

    Rates are before the warm-up. Members that are `drawn` have one batch size; the others train on all their training
    pairs at once, so that their sizes differ with their operations.
    """

    batch_size: Int64[np.ndarray, "blocks M"]
    learning_rate: Float64[np.ndarray, "blocks M"]
    weight_decay: Float64[np.ndarray, "blocks M"]
    beta1: Float64[np.ndarray, "blocks M"]
    beta2: Float64[np.ndarray, "blocks M"]
    drawn: bool = True


@dataclass(frozen=True)
class ExecutionPath:
    """How the numbers are computed. Another path gives the same numbers to rounding, so a resumed run keeps its own."""

    device: str  # cpu or cuda
    precision: str
    compiled: bool
    threads: int


@dataclass(frozen=True)
class Run:
    """One execution of run.ipynb: one arm and a block of seeds of a study, on every cell and operation."""

    study: Study
    arm: Arm
    seeds: tuple[int, ...]
    results: Path = Path("results")
    device: str = "auto"
    threads: int = 1  # CPU threads

    @property
    def name(self) -> str:
        """Such as linear-seed0, linear-seeds0-2 or linear-seeds0,5; with a digest of the seeds where they are many."""
        first, last = self.seeds[0], self.seeds[-1]
        if len(self.seeds) == 1:
            return f"{self.arm.name}-seed{first}"
        consecutive = self.seeds == tuple(range(first, last + 1))
        seeds = f"{first}-{last}" if consecutive else ",".join(map(str, self.seeds))
        if len(seeds) > 60:  # too long for a file's name
            seeds = f"{first}-{last}-{key(*self.seeds):016x}"
        return f"{self.arm.name}-seeds{seeds}"

    @property
    def folder(self) -> Path:
        """Where the study's results are."""
        return self.results / self.study.name

    @property
    def checkpoint(self) -> Path:
        """Where the run's state is kept while it is not complete."""
        return self.folder / "checkpoints" / f"{self.name}.safetensors"

    @property
    def notebook(self) -> Path:
        """Where the executed notebook is or will be."""
        return self.folder / "runs" / f"{self.name}.ipynb"

    def record(self, seed: int) -> Path:
        """Where the record of this arm and `seed` is or will be."""
        return self.folder / "records" / f"{self.arm.name}-seed{seed}.parquet"

    @cached_property
    def members(self) -> list[Member]:
        """The stack's members."""
        return self.arm.members(self.seeds)

    def tasks(self) -> list[Task]:
        """Each member's task; members of one operation and seed share theirs."""
        s = self.arm.settings
        made = {(o, seed): make_task(o, seed, s.modulus, s.train_fraction) for o in s.operations for seed in self.seeds}
        return [made[m.operation, m.seed] for m in self.members]

    @cached_property
    def courses(self) -> Courses:
        """What the members train with."""
        found = {}
        for name in HYPER:
            of = self.arm.courses(name, self.study.updates)
            found[name] = np.stack([of[m.operation, m.cell] for m in self.members], axis=1)
        return Courses(**found, drawn=self.arm.settings.batch_size != "all")

    @property
    def batch_sizes(self) -> Int64[np.ndarray, " blocks"]:
        """The batch size of each block, the largest of any member."""
        return self.courses.batch_size.max(axis=1)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What its records must have been made with."""
        stop = self.study.stop_after
        return self.arm.identity(self.study.updates) | ({} if stop is None else {"stop_after": stop})


@dataclass(frozen=True)
class Result:
    """What a completed run leaves: its `logs`, as `engine.trainer.Trainer` has them, fewer where it ended early."""

    run: Run
    path: ExecutionPath
    logs: Float32[np.ndarray, "logs M columns"]
    started: str  # UTC, ISO 8601
    seconds: float  # of training, over all sessions of an interrupted run

    @property
    def updates(self) -> int:
        """How many the run made."""
        return schedules.BLOCK * len(self.logs)


def runs_of(study: Study, results: Path, device: str = "auto") -> Iterator[Run]:
    """The run of each arm with all the study's seeds."""
    for arm in study.arms:
        yield Run(study, arm, study.seeds, results, device)
