"""A run from its start or its checkpoint to its end: which path it takes, progress, checkpoints, and interrupts."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor

from grok_utils.engine.cuda import graphed_trainer
from grok_utils.engine.machine import choose_path, has_compiler, work_by_block
from grok_utils.engine.trainer import Trainer, early_end
from grok_utils.errors import BadInput, Damaged
from grok_utils.schedules import BLOCK
from grok_utils.store import checkpoints
from grok_utils.studies import ExecutionPath, Result, Run

CHECKPOINT_SECONDS = 20.0  # between two checkpoints: see `until_the_next_checkpoint`
WRITTEN_A_SECOND = 1.5e8  # bytes of state, before a run has measured it: 1.4e8 to 7.7e8 were, on one core
PROGRESS_SECONDS = 0.5  # reading the logs makes a GPU wait, so not after every block


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[list[int]]:
    """Within, Ctrl-C and SIGTERM are remembered instead of obeyed; yields the list of those that came.

    However many come, they are one request: SLURM sends its signal to all processes of a job, of which the one that
    executes the notebook passes it on to the kernel as SIGINT.
    """
    asked: list[int] = []
    with contextlib.ExitStack() as restored:
        for number in (signal.SIGINT, signal.SIGTERM):
            before = signal.signal(number, lambda n, frame: asked.append(n))
            restored.callback(signal.signal, number, before)
        yield asked


def make_trainer(run: Run, path: ExecutionPath) -> Trainer:
    """The run's trainer at its start. Raises BadInput where it does not fit on the GPU."""
    if path.device == "cuda":
        return graphed_trainer(run, path)
    return Trainer(run.tasks(), run.courses, path, run.arm.settings, run.study.measures)


def load_checkpoint(run: Run) -> tuple[dict[str, Tensor] | None, dict[str, Any]]:
    """The run's state and what goes with it, from its checkpoint where there is one; at its start there is no state.

    Raises Damaged where the checkpoint is damaged or another run's.
    """
    identity = {"checkpoint_version": 2, "study": run.study.name, "schedule": run.arm.name}
    identity |= {"identity": run.identity, "seeds": list(run.seeds)}
    identity["measures"] = list(run.study.measures) or None  # None, as of a checkpoint that says nothing of them
    identity["members"] = [[m.operation, m.cell.name, m.seed] for m in run.members]  # the state is in their order
    if not run.checkpoint.exists():
        started = datetime.now(UTC).isoformat(timespec="seconds")
        return None, identity | {"path": asdict(choose_path(run)), "started": started, "seconds": 0.0}
    state, metadata = checkpoints.load(run.checkpoint)
    if any(metadata.get(k) != identity[k] for k in identity):
        raise Damaged(f"{run.checkpoint} was made with other settings: it is not used, the run starts again")
    return state, metadata


def resume(run: Run) -> tuple[Trainer, dict[str, Any]]:
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
    begun, anew = f"{run.checkpoint} was begun", "here: delete it to start anew"
    if path.device == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"device: {begun} on 'cuda', which is not available {anew}")
    if path.compiled and not has_compiler(path.device):
        raise BadInput(f"compiler: {begun} compiled, and none is {anew}")
    trainer = make_trainer(run, path)
    if state is not None:
        trainer.restore(state)
    return trainer, metadata


def until_the_next_checkpoint(cost: float, whole: float) -> float:
    """Seconds from a checkpoint that took `cost` seconds to the next, in a run that takes `whole` of them.

    At most 20 and at most 0.8 % of the run, which killed at every tenth loses less than a tenth; but never so few that
    writing takes more than 3 % of the time.
    """
    return max(cost / 0.03, min(CHECKPOINT_SECONDS, 0.008 * whole))


def train(run: Run, progress: Callable[[int, np.ndarray], None] | None = None) -> Result:
    """Train the run from its checkpoint or from its start.

    A checkpoint is written now and then, see `until_the_next_checkpoint`, and before KeyboardInterrupt is raised on
    Ctrl-C or SIGTERM.
    `progress(updates, logs)` is called twice a second with the updates done and the logs so far [logs, M, 4 + columns].
    Only then is an early end seen, which a GPU would have to be waited for: what was trained beyond it is dropped.
    """
    trainer, metadata = resume(run)
    before, start = metadata["seconds"], time.monotonic()
    saved, shown = start, -PROGRESS_SECONDS
    pause = until_the_next_checkpoint(sum(t.nbytes for t in trainer.state().values()) / WRITTEN_A_SECOND, 0.0)
    work = np.concatenate([[0], np.cumsum(work_by_block(run))])
    first, stop_after = work[trainer.block], run.study.stop_after
    end = early_end(trainer.logged().cpu().numpy(), stop_after)  # of a run that was killed before it left its record
    with deferred_interrupt() as interrupted:
        while end is None and trainer.block < trainer.blocks:
            trainer.run_block()
            now, last = time.monotonic(), trainer.block == trainer.blocks
            if (progress is not None or stop_after) and (last or now - shown > PROGRESS_SECONDS):
                shown, logs = now, trainer.logged().cpu().numpy()
                end = early_end(logs, stop_after)
                if progress is not None:
                    progress(len(logs[:end]) * BLOCK, logs[:end])
            if now - saved > pause or interrupted:
                trainer.logged().cpu()  # a GPU is blocks behind: waiting for it is no part of what writing costs
                now = time.monotonic()
                metadata |= {"updates": trainer.block * BLOCK, "seconds": before + now - start}
                checkpoints.save(run.checkpoint, trainer.state(), metadata)
                saved = time.monotonic()
                whole = (now - start) * work[-1] / (work[trainer.block] - first)
                pause = until_the_next_checkpoint(saved - now, whole)
            if interrupted:
                raise KeyboardInterrupt
    logs = trainer.logged().cpu().numpy()[:end]
    return Result(run, trainer.path, logs, metadata["started"], before + time.monotonic() - start)
