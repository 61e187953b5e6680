"""A study, its arms, and a run of it: settings, and what follows from them. `parameters.py` reads and checks them."""

import dataclasses
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grok_utils.errors import BadInput, one_line, require
from grok_utils.schedules import CONTROLS, RATE_FACTORS, SCHEDULES, batch_sizes, constant, shuffle
from grok_utils.tasks import Task, key, make_task


@dataclass(frozen=True)
class Arm:
    """One arm of a study: a schedule, perhaps with a control over a window of updates."""

    name: str
    schedule: str
    batch_size: int | None = None  # of schedule `constant`
    control: str | None = None  # reverse, shuffle or mean
    window: int | None = None  # the control covers the updates in [0, window]; None: all of them
    order: int = 0  # which of the shuffled orders

    def batch_sizes(self, study: "Study") -> np.ndarray:
        """Batch size of each block of 10 updates: int64 [updates / 10]."""
        f = constant(self.batch_size) if self.schedule == "constant" else SCHEDULES[self.schedule]
        control = CONTROLS.get(self.control)
        if control is shuffle:
            control = lambda sizes: shuffle(sizes, self.order)  # noqa: E731
        try:
            return batch_sizes(f, study.updates, study.lo, study.hi, study.schedule_length, control, self.window)
        except (ValueError, ArithmeticError) as error:
            raise BadInput(one_line(f"schedules.{self.name}: {error}")) from None


@dataclass(frozen=True)
class Study:
    """Every setting of a study, and the only place where a default lives. Defaults are the protocol's."""

    name: str  # the study file's name; its results are in results/<name>
    schedules: tuple[Arm, ...]
    title: str = ""
    seeds: tuple[int, ...] = (0, 1, 2)
    operations: tuple[str, ...] = ("x_plus_y", "x_minus_y", "x_div_y", "permutation")
    updates: int = 7500
    schedule_length: int | None = None  # the schedules' T where it is not `updates`
    modulus: int = 97
    train_fraction: float = 0.5
    lo: int = 32  # smallest and …
    hi: int = 512  # … largest batch size of the schedules
    learning_rate: float = 1e-3
    rate_factor: str = "constant"  # how the learning rate follows the batch size, one of schedules.RATE_FACTORS
    weight_decay: float = 0.5
    precision: str = "float32"

    @property
    def reference(self) -> str:
        """The arm that the others are compared with: `baseline`, or the first arm of a study that has none."""
        names = [a.name for a in self.schedules]
        return "baseline" if "baseline" in names else names[0]

    def arm(self, name: str) -> Arm:
        """The arm called `name`; BadInput where the study has none."""
        arms = {a.name: a for a in self.schedules}
        known = f"an arm of study {self.name} ({', '.join(arms)})"
        require(isinstance(name, str) and name in arms, "schedule", name, known)
        return arms[name]

    def settings(self, arm: Arm) -> dict[str, Any]:
        """What decides the numbers of one arm's records, as JSON types: all but names, seeds and the other arms."""
        left_out = {"name", "title", "schedules", "seeds"}
        values = {k: v for k, v in dataclasses.asdict(self).items() if k not in left_out}
        values |= {"operations": list(self.operations), "arm": dataclasses.asdict(arm)}
        # A schedule is code: whoever edits it gets another digest, hence another run.
        return values | {"batch_sizes_sha256": hashlib.sha256(arm.batch_sizes(self)).hexdigest()}


@dataclass(frozen=True)
class Courses:
    """What the members of a stack train with, block by block: an array [blocks, M] for each hyper-parameter.

    Batch sizes are int64, the others float64; rates are before the warm-up. Members that are `drawn` have one batch
    size; the others train on all their training pairs at once, so that their sizes differ with their operations.
    """

    batch_size: np.ndarray
    learning_rate: np.ndarray
    weight_decay: np.ndarray
    beta1: np.ndarray
    beta2: np.ndarray
    drawn: bool = True


@dataclass(frozen=True)
class Run:
    """One execution of run.ipynb: one arm and a block of seeds of a study, on every operation."""

    study: Study
    arm: Arm
    seeds: tuple[int, ...]
    results: Path = field(default=Path("results"))
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
    def on_cuda(self) -> bool:
        """Whether it trains on a GPU: `auto` takes one where PyTorch sees one."""
        return self.device != "cpu" and torch.cuda.is_available()

    @property
    def folder(self) -> Path:
        """Where the study's results are."""
        return self.results / self.study.name

    @property
    def checkpoint(self) -> Path:
        """Where the run's state is kept while it is not complete."""
        return self.folder / "checkpoints" / f"{self.name}.safetensors"

    @property
    def batch_sizes(self) -> np.ndarray:
        """Batch size of each block of 10 updates: int64 [updates / 10]."""
        return self.arm.batch_sizes(self.study)

    @property
    def rates(self) -> np.ndarray:
        """Full learning rate of each block of 10 updates, before the warm-up: float64 [updates / 10]."""
        s = self.study
        linear = Arm("linear", "linear").batch_sizes(s)
        return s.learning_rate * RATE_FACTORS[s.rate_factor](self.batch_sizes, linear, s.lo, s.hi)

    def record(self, seed: int) -> Path:
        """Where the record of this arm and `seed` is or will be."""
        return self.folder / "records" / f"{self.arm.name}-seed{seed}.parquet"

    def tasks(self) -> list[Task]:
        """The stack's members: each operation with each seed, operation by operation."""
        s = self.study
        return [make_task(op, seed, s.modulus, s.train_fraction) for op in s.operations for seed in self.seeds]
