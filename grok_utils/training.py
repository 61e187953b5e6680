"""A run from its start or its checkpoint to its end: which path it takes, progress, checkpoints, and interrupts."""

import contextlib
import importlib.util
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime

import numpy as np
import torch
from torch import Tensor

from grok_utils.engine.cuda import graphed_trainer
from grok_utils.engine.trainer import Trainer
from grok_utils.errors import BadInput, Damaged
from grok_utils.schedules import BLOCK
from grok_utils.store import checkpoints
from grok_utils.studies import ExecutionPath, Result, Run
from grok_utils.tasks import count_pairs, count_train

CHECKPOINT_SECONDS = 20.0  # between two checkpoints, or less: see `until_the_next_checkpoint`
PROGRESS_SECONDS = 0.5  # reading the logs makes a GPU wait, so not after every block
# Examples' forward passes from which torch.compile earns its minute of compiling on a CPU: eager needs some 18 µs each
# and compiled saves a quarter.
COMPILE_FROM = 20_000_000


def choose_path(run: Run) -> ExecutionPath:
    """The path by fixed rules: CUDA where `auto` finds it; compiled where a compiler exists and the work repays it."""
    device = "cuda" if run.on_cuda else "cpu"
    compiled = has_compiler(device) and forward_passes(run) >= COMPILE_FROM
    return ExecutionPath(device, run.arm.settings.precision, compiled, run.threads)


def has_compiler(device: str) -> bool:
    """Whether torch.compile finds what it calls: Triton and a C compiler for CUDA; CXX, by default g++, for a CPU."""
    if device == "cuda":
        names = ("gcc", "clang", "cc") if importlib.util.find_spec("triton") is not None else ()
    else:
        names = (os.environ.get("CXX", "g++"),)
    return sys.platform == "linux" and any(shutil.which(name) for name in names)


def forward_passes(run: Run) -> int:
    """The run's work in examples' forward passes; an update counts three for each of its examples."""
    return int(work_by_block(run).sum())


def work_by_block(run: Run) -> np.ndarray:
    """The forward passes of each block of 10 updates with its validation: [blocks]."""
    s = run.arm.settings
    validation = {o: count_pairs(o, s.modulus) - count_train(o, s.modulus, s.train_fraction) for o in s.operations}
    return 3 * BLOCK * run.courses.batch_size.sum(axis=1) + sum(validation[m.operation] for m in run.members)


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Within, Ctrl-C and SIGTERM are remembered instead of obeyed; yields a function that says whether one came.

    A second of the same kind raises KeyboardInterrupt. One of each is one request: SLURM ends a job by SIGTERM to all
    its processes, of which the one that executes the notebook passes it on to the kernel as SIGINT.
    """
    asked = []

    def remember(number: int, frame: object) -> None:
        if number in asked:
            raise KeyboardInterrupt
        asked.append(number)

    previous = {s: signal.signal(s, remember) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for s, handler in previous.items():
            signal.signal(s, handler)


def make_trainer(run: Run, path: ExecutionPath) -> Trainer:
    """The run's trainer at its start. Raises BadInput where it does not fit on the GPU."""
    kind = graphed_trainer if path.device == "cuda" else Trainer
    return kind(run.tasks(), run.courses, path)


def load_checkpoint(run: Run) -> tuple[dict[str, Tensor] | None, dict[str, object]]:
    """The run's state and what goes with it, from its checkpoint where there is one; at its start there is no state.

    Raises Damaged where the checkpoint is damaged or another run's.
    """
    identity = {"checkpoint_version": 2, "study": run.study.name, "schedule": run.arm.name}
    identity |= {"identity": run.identity, "seeds": list(run.seeds)}
    identity["members"] = [[m.operation, m.cell.name, m.seed] for m in run.members]  # the state is in their order
    if not run.checkpoint.exists():
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return None, identity | {"path": asdict(choose_path(run)), "started": started, "seconds": 0.0}
    state, metadata = checkpoints.load(run.checkpoint)
    if any(metadata.get(k) != identity[k] for k in identity):
        raise Damaged(f"{run.checkpoint} was made with other settings: it is not used, the run starts again")
    return state, metadata


def resume(run: Run) -> tuple[Trainer, dict[str, object]]:
    """A trainer at the run's checkpoint, or at its start, and the checkpoint's metadata.

    A checkpoint that is damaged or was made with other settings is not used: a line says so, it is removed, and the
    run starts again.
    """
    try:
        state, metadata = load_checkpoint(run)
    except Damaged as error:
        print(error)  # not on stderr, which a notebook shows in red: a schedule that is edited is no mistake
        run.checkpoint.unlink()
        state, metadata = load_checkpoint(run)
    path = ExecutionPath(**metadata["path"])
    if path.device == "cuda" and not torch.cuda.is_available():
        raise BadInput(
            f"device: {run.checkpoint} was begun on 'cuda', which is not available here: delete it to start anew"
        )
    if path.compiled and not has_compiler(path.device):
        raise BadInput(f"compiler: {run.checkpoint} was begun compiled, and none is here: delete it to start anew")
    trainer = make_trainer(run, path)
    if state is not None:
        trainer.restore(state)
    return trainer, metadata


def until_the_next_checkpoint(cost: float, whole: float) -> float:
    """Seconds from a checkpoint that took `cost` seconds to the next, in a run that takes `whole` of them.

    At most 20, less where writing then takes but 2 % of the time. And at most 0.8 % of the run, which killed at every
    tenth loses less than a tenth; but not so little that writing takes more than 10 %.
    """
    return min(CHECKPOINT_SECONDS, cost / 0.02, max(0.008 * whole, cost / 0.1))


def train(run: Run, progress: Callable[[int, np.ndarray], None] | None = None) -> Result:
    """Train the run from its checkpoint or from its start.

    A checkpoint is written every 20 seconds or sooner, and before KeyboardInterrupt is raised on Ctrl-C or SIGTERM.
    `progress(updates, logs)` is called twice a second with the updates done and the logs so far [logs, M, 4].
    """
    trainer, metadata = resume(run)
    before, start = metadata["seconds"], time.monotonic()
    saved, shown, pause = start, -PROGRESS_SECONDS, CHECKPOINT_SECONDS / 20
    work = np.concatenate([[0], np.cumsum(work_by_block(run))])
    first = work[trainer.block]
    with deferred_interrupt() as interrupted:
        while trainer.block < len(trainer.batch_sizes):
            trainer.run_block()
            now, last = time.monotonic(), trainer.block == len(trainer.batch_sizes)
            if progress is not None and (last or now - shown > PROGRESS_SECONDS):
                shown = now
                progress(trainer.block * BLOCK, trainer.logged().cpu().numpy())
            if now - saved > pause or interrupted():
                metadata |= {"updates": trainer.block * BLOCK, "seconds": before + now - start}
                checkpoints.save(run.checkpoint, trainer.state(), metadata)
                saved = time.monotonic()
                whole = (now - start) * work[-1] / (work[trainer.block] - first)
                pause = until_the_next_checkpoint(saved - now, whole)
            if interrupted():
                raise KeyboardInterrupt
    logs = trainer.logged().cpu().numpy()
    return Result(run, trainer.path, logs, metadata["started"], before + time.monotonic() - start)
