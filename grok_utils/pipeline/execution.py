"""Executing the notebooks by papermill: a run, a report, the evidence; and stopping one without losing its work."""

import contextlib
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import papermill
import psutil
from nbclient.exceptions import DeadKernelError

from grok_utils.engine.machine import forward_passes
from grok_utils.errors import BadInput, Damaged, Failed, one_line, with_remedy
from grok_utils.pipeline.kernel import Kernel
from grok_utils.pipeline.locks import at_work, locked
from grok_utils.pipeline.plan import PART, clock, left_to_do, progress_lines, time_left
from grok_utils.store import files
from grok_utils.store.files import NOTEBOOKS, ROOT
from grok_utils.store.records import is_complete
from grok_utils.studies import Run
from grok_utils.training import load_checkpoint

STARTS = 3  # of a kernel: of many that start at once, two may be given the same port
NOT_STARTED = "Kernel died before replying"  # as jupyter_client says it
START_SECONDS = 600  # until a kernel answers, which loads PyTorch first, perhaps beside many others
SAVE_SECONDS = 5  # between two copies of a notebook while a cell is executed: `status` reads from them how far it is
STOP_SECONDS = 4.0  # that a kernel gets to write its checkpoint
logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it has to tell of a failure, `Failed` tells


@contextlib.contextmanager
def graceful_stop() -> Iterator[list[int]]:
    """On SIGINT or SIGTERM interrupt the kernel, which then saves its checkpoint; end it where it takes too long.

    However many come, they are one request: make sends the SIGTERM that a whole group gets once more to what it runs.
    Yields a list that holds the first signal's number once one came.
    """
    received: list[int] = []

    def stop(number: int, frame: object) -> None:
        late = number == signal.SIGALRM
        if received and not late:
            return
        received.append(number)
        signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # a compiler that the kernel called, say, has ended since
                process.send_signal(signal.SIGKILL if late else signal.SIGINT)
        if late:
            os._exit(128 + received[0])

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    try:
        yield received
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for s, handler in before.items():
            signal.signal(s, handler)


def execute(notebook: str, output: Path, parameters: dict[str, object], kernel: Kernel | None = None) -> None:
    """Execute a notebook of the project to `output`, which appears only once it is whole, by `kernel` or by a new one.

    While it runs, and after a failure, the copy is beside it under the name `*.part.ipynb`. Raises Failed.
    """
    part = output.with_suffix(PART)
    part.parent.mkdir(parents=True, exist_ok=True)
    options = {"kernel_name": "python3", "progress_bar": False, "cwd": NOTEBOOKS, "start_timeout": START_SECONDS}
    options |= {"parameters": parameters, "autosave_cell_every": SAVE_SECONDS}
    with graceful_stop() as received:
        try:
            kernel = (kernel or Kernel()).start()
            for start in range(1, STARTS + 1):
                try:
                    papermill.execute_notebook(NOTEBOOKS / notebook, part, km=kernel.manager, **options)
                    break
                except RuntimeError as error:
                    if received or start == STARTS or NOT_STARTED not in str(error):
                        raise
                finally:
                    kernel.stop()
                kernel = Kernel(kernel.threads).start()
        except Exception as error:
            if received:
                raise SystemExit(128 + received[0]) from None
            reason = from_here(one_line(why(error)), str(parameters["results"]))[:1000]
            remember_failure(part, reason)
            raise Failed(f"{output.stem}: {reason} (see {part})") from None
    done = nbformat.read(part, as_version=4)
    for name in ("input_path", "output_path"):  # where this machine keeps its files is nobody's business
        done["metadata"]["papermill"].pop(name, None)
    with files.written_whole(output) as temporary:
        nbformat.write(done, temporary)
    part.unlink()


def why(error: Exception) -> str:
    """What went wrong in a notebook: the error of its cell, the end of its kernel, or papermill's own error."""
    if isinstance(error, DeadKernelError):
        died = "the kernel died, as one does that is killed or runs out of memory"
        return f"{died}: run it again, fewer at a time (-j) where memory is short"
    name, text = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", error)
    if name in (BadInput.__name__, Damaged.__name__):  # which are told in full
        return with_remedy(text)
    if name.endswith("MemoryError"):  # Python's, NumPy's, and PyTorch's of a GPU
        return f"{name}: {text}: take fewer seeds at once (SEEDS_PER_RUN) or fewer runs at a time (-j)"
    return with_remedy(f"{name}: {text}")


def remember_failure(part: Path, reason: str) -> None:
    """Note in the notebook that a failed run left why it failed, until it is executed anew."""
    with contextlib.suppress(OSError, ValueError):  # no notebook, or half of one: there is nothing to be noted in
        left = nbformat.read(part, as_version=4)
        left["metadata"]["papermill"]["failed"] = reason
        nbformat.write(left, part)


def from_notebooks(path: Path) -> str:
    """`path` as a notebook sees it, relative wherever it is inside the project."""
    path = path.resolve()
    return os.path.relpath(path, NOTEBOOKS) if path.is_relative_to(ROOT) else str(path)


def from_here(text: str, results: str) -> str:
    """The text of a notebook with its path of the results as it is from the current folder."""
    here = str(files.from_notebook(results))
    return re.sub(rf"(?<![\w./-]){re.escape(results)}(?![\w.-])", lambda _: here, text)


def study_parameter(study: str) -> str:
    """A study's name as it is; the path of a study file as a notebook sees it."""
    return from_notebooks(Path(study)) if study.endswith((".yaml", ".yml")) else study


def execute_run(run: Run, study: str, kernel: Kernel | None = None) -> None:
    """Make the run's missing records through run.ipynb, by `kernel` or by a new one.

    `study` is the name or path that the study was loaded by.
    """
    start = time.monotonic()
    with locked(run):
        missing = tuple(seed for seed in run.seeds if not is_complete(run, seed))
        if not missing:
            print(f"{run.name}: found complete")
            return
        if not run.checkpoint.exists():  # a block that was begun is finished as it is
            run = replace(run, seeds=missing)
        parameters: dict[str, object] = {"study": study_parameter(study), "schedule": run.arm.name}
        parameters |= {"seeds": list(run.seeds), "results": from_notebooks(run.results), "device": run.device}
        parameters |= {"threads": run.threads, "precision": run.arm.settings.precision}
        try:
            load_checkpoint(run)
        except Damaged as error:  # told here, where it is seen; the notebook then starts again
            print(error, file=sys.stderr)
        with progress_lines(run):
            execute("run.ipynb", run.notebook, parameters, kernel or Kernel(run.threads))
    for seed in missing:
        if not is_complete(run, seed):
            left = f"{run.name}: the notebook ended without leaving {run.record(seed)}"
            raise Failed(f"{left}: give run.ipynb back its write_records(result), then run it again")
    seconds = time.monotonic() - start
    found, work = left_to_do(run.study, run.results)
    told = f"{found} of {len(run.study.arms) * len(run.study.seeds)} records"
    if not set(run.seeds) <= set(run.study.seeds):  # not among those that the study counts
        told = ", ".join(str(run.record(seed)) for seed in missing)
    elif work:
        runs = 1 + len(at_work(run.folder)) // len(run.seeds)  # at a time, if others hold as many records
        told += f", {time_left(run.study, clock(seconds * work / forward_passes(run) / runs))}"
    print(f"{run.name}: done in {clock(seconds)} ({told}), see {run.notebook}")
