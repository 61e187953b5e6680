"""Who works on what: one process on a record at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from grok_utils.studies import Run

HELD = "GROK_UTILS_HELD"  # in the environment while a run's locks are held: its name, and the holder's process


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Only one process at a time works on a record, whatever block it is in; a second one says so and waits.

    To what the holder starts meanwhile, a kernel, it is open: it would wait for the process that waits for it.
    """
    name, _, process = os.environ.get(HELD, "").rpartition(" ")
    with contextlib.ExitStack() as held:
        if name != run.name or process == str(os.getpid()):
            for seed in run.seeds:  # in ascending order, so that no two wait for each other
                held.enter_context(alone(run.folder, run.record(seed).stem))
            os.environ[HELD] = f"{run.name} {os.getpid()}"
            held.callback(os.environ.pop, HELD, None)
        yield


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Only one process at a time makes what is called `name` in a study's folder; a second one says so and waits."""
    path = folder / "checkpoints" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{name}: another process is working on it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def at_work(folder: Path) -> set[str]:
    """What of a study's results a process works on now: the names of records, such as linear-seed0, or report."""
    names = set()
    for path in filter(Path.is_file, folder.glob("checkpoints/*.lock")):
        with open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                names.add(path.stem)
    return names
