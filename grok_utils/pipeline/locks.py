"""Who works on what: one process on a record at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from grok_utils.studies import Run

LENT = "GROK_UTILS_LENT"  # in a kernel's environment: the run whose lock the process that started it holds


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Only one process at a time works on a record, whatever block it is in; a second one says so and waits.

    To a kernel that was `lent` the run it is open: it would wait for the process that waits for it.
    """
    with contextlib.ExitStack() as held:
        if os.environ.get(LENT) != run.name:
            for seed in run.seeds:  # in ascending order, so that no two wait for each other
                held.enter_context(alone(run.folder, run.record(seed).stem))
        yield


@contextlib.contextmanager
def lent(run: Run) -> Iterator[None]:
    """A kernel that is started meanwhile works on the run under the lock of this process."""
    os.environ[LENT] = run.name
    try:
        yield
    finally:
        del os.environ[LENT]


@contextlib.contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """Only one process at a time makes what is called `name` in a study's folder; a second one says so and waits."""
    path = folder / "checkpoints" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{name}: another process is working on it; waiting", flush=True)
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
