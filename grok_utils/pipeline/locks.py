"""Who works on what: one process on a record at a time."""

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import psutil

from grok_utils.studies import Run


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Only one process at a time works on a record, whatever block it is in; a second one says so and waits."""
    with contextlib.ExitStack() as held:
        for seed in run.seeds:  # in ascending order, so that no two wait for each other
            held.enter_context(alone(run.folder, run.record(seed).stem))
        yield


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Only one process at a time makes what is called `name` in a study's folder; a second one says so and waits.

    The lock names its holder. To what that has started, a kernel, it is open: the holder waits for it in turn.
    """
    path = folder / "checkpoints" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    here = platform.node()  # others may see the lock, too
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            if file.read() in [f"{here} {process.pid}" for process in psutil.Process().parents()]:
                yield
                return
            print(f"{name}: another process is working on it; waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"{here} {os.getpid()}")
        file.flush()
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
