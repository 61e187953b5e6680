"""Executing the notebooks by papermill: what of a study is still to be done, one run, and the report."""

import contextlib
import fcntl
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import papermill
import psutil

from grok_utils import checkpoints
from grok_utils.pdf import find_chromium, print_pdf
from grok_utils.prose import clock
from grok_utils.records import is_complete
from grok_utils.schedules import BLOCK
from grok_utils.studies import BadInput, Run, Study, check_seeds
from grok_utils.training import forward_passes, load_checkpoint, work_by_block

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
REPORT_SECONDS = 30.0  # between two lines of progress of a run
LOOK_SECONDS = 2.0  # between two looks at its checkpoint
STOP_SECONDS = 4.0  # that a kernel gets to write its checkpoint


class Failed(Exception):
    """One line that says what failed and where to look."""


def planned_runs(study: Study, results: Path, seeds_per_run: int = 1) -> list[Run]:
    """The runs whose records are missing, most work first; every arm's missing seeds in blocks of `seeds_per_run`.

    A block that was begun stays as it is. Raises Damaged where a record is there but is not valid.
    """
    runs = []
    for arm in study.schedules:
        every = Run(study, arm, study.seeds, results)
        missing = [seed for seed in study.seeds if not is_complete(every, seed)]
        for run in begun_runs(every):
            if set(run.seeds) & set(missing):
                missing = [seed for seed in missing if seed not in run.seeds]
                runs.append(run)
        for i in range(0, len(missing), seeds_per_run):
            runs.append(replace(every, seeds=tuple(missing[i : i + seeds_per_run])))
    return sorted(runs, key=lambda run: -run.batch_sizes.sum() * len(run.seeds))


def begun_runs(every: Run) -> Iterator[Run]:
    """The runs of an arm that have a checkpoint; `every` is the run of all its seeds."""
    for path in sorted((every.folder / "checkpoints").glob(f"{every.arm.name}-seed*.safetensors")):
        with contextlib.suppress(checkpoints.Damaged, KeyError, TypeError, BadInput):
            run = replace(every, seeds=check_seeds(checkpoints.read_metadata(path)["seeds"]))
            if run.checkpoint == path and set(run.seeds) <= set(every.seeds):
                yield run


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Only one process at a time works on a record, whatever block it is in; a second one says so and waits."""
    with contextlib.ExitStack() as held:
        for seed in run.seeds:  # in ascending order, so that no two wait for each other
            held.enter_context(alone(run.folder, f"{run.arm.name}-seed{seed}"))
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
            print(f"{name}: another process is working on it; waiting", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def at_work(folder: Path) -> set[str]:
    """The names of the runs of a study's results that a process works on now."""
    names = set()
    for path in folder.glob("checkpoints/*.lock"):
        with open(path) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                names.add(path.stem)
    return names


def share_done(run: Run, updates: int) -> float:
    """The share of the run's forward passes that its first `updates` take: of a batch that grows, the cheaper ones."""
    work = work_by_block(run)
    return work[: updates // BLOCK].sum() / work.sum()


def progress_of(run: Run) -> tuple[int, float]:
    """Updates and seconds of training that the run's checkpoint holds; none of both where there is none."""
    try:
        metadata = checkpoints.read_metadata(run.checkpoint)
        return metadata["updates"], metadata["seconds"]
    except (checkpoints.Damaged, KeyError, TypeError):  # of an older version, say
        return 0, 0.0


@contextlib.contextmanager
def progress_lines(run: Run) -> Iterator[None]:
    """Print where the run is, one line now and then, read from its checkpoints."""
    finished = threading.Event()

    def watch() -> None:
        seen, due = progress_of(run)[0], 0.0
        while not finished.wait(LOOK_SECONDS):
            done, seconds = progress_of(run)
            if done > seen and time.monotonic() > due:
                seen, total, due = done, run.study.updates, time.monotonic() + REPORT_SECONDS
                left = clock(seconds * (1 / share_done(run, done) - 1))
                print(f"{run.name}: {done:,} of {total:,} updates, about {left} left", flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


@contextlib.contextmanager
def graceful_stop() -> Iterator[list[int]]:
    """On SIGINT or SIGTERM interrupt the kernel, which then saves its checkpoint; end it where it takes too long.

    Yields a list that holds the signal's number once one came.
    """
    received: list[int] = []
    last_resort = threading.Timer(STOP_SECONDS, lambda: os.kill(os.getpid(), signal.SIGTERM))
    last_resort.daemon = True

    def stop(number: int, frame: object) -> None:
        kernels = psutil.Process().children(recursive=True)
        if received:
            for kernel in kernels:
                kernel.kill()
            os._exit(128 + received[0])
        received.append(number)
        for kernel in kernels:
            kernel.send_signal(signal.SIGINT)
        last_resort.start()

    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        last_resort.cancel()
        for s, handler in before.items():
            signal.signal(s, handler)


def execute(notebook: str, output: Path, parameters: dict[str, object]) -> None:
    """Execute a notebook of the project to `output`, which appears only once it is whole.

    While it runs, and after a failure, the copy is beside it under the name `*.part.ipynb`. Raises Failed.
    """
    part = output.with_suffix(".part.ipynb")
    part.parent.mkdir(parents=True, exist_ok=True)
    # A kernel asked politely takes seconds to go, and by then it has nothing left to save.
    options = {"kernel_name": "python3", "progress_bar": False, "cwd": str(NOTEBOOKS), "shutdown_kernel": "immediate"}
    options["extra_arguments"] = [
        "--IPKernelApp.log_level=50"
    ]  # its warnings of TCP on this host, and of our interrupt
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, graceful_stop() as received:
        os.environ["IPYTHONDIR"] = profile  # no start-up file of the user's runs, and the home need not be writable
        try:
            papermill.execute_notebook(str(NOTEBOOKS / notebook), str(part), parameters, **options)
        except Exception as error:
            if received:
                raise SystemExit(128 + received[0]) from None
            reason = f"{error.ename}: {error.evalue}" if hasattr(error, "ename") else f"{type(error).__name__}: {error}"
            reason = " ".join(reason.split())[:300]
            remember_failure(part, reason)
            raise Failed(f"{output.stem}: {reason} (see {part})") from None
    done = nbformat.read(part, as_version=4)
    for name in ("input_path", "output_path"):  # where this machine keeps its files is nobody's business
        done["metadata"]["papermill"].pop(name, None)
    with checkpoints.written_whole(output) as temporary:
        nbformat.write(done, temporary)
    part.unlink()


def remember_failure(part: Path, reason: str) -> None:
    """Note in the notebook that a failed run left why it failed, until it is executed anew."""
    with contextlib.suppress(OSError, ValueError):  # no notebook, or half of one: there is nothing to be noted in
        left = nbformat.read(part, as_version=4)
        left["metadata"]["papermill"]["failed"] = reason
        nbformat.write(left, part)


def from_notebooks(path: Path) -> str:
    """`path` as a notebook sees it, relative wherever it is inside the project."""
    path, root = path.resolve(), NOTEBOOKS.parent
    return os.path.relpath(path, NOTEBOOKS) if path.is_relative_to(root) else str(path)


def study_parameter(study: str) -> str:
    """A study's name as it is; the path of a study file as a notebook sees it."""
    return from_notebooks(Path(study)) if study.endswith((".yaml", ".yml")) else study


def execute_run(run: Run, study: str) -> None:
    """Make the run's missing records through run.ipynb. `study` is the name or path that the study was loaded by."""
    start = time.monotonic()
    with locked(run):
        missing = tuple(seed for seed in run.seeds if not is_complete(run, seed))
        if not missing:
            print(f"{run.name}: found complete", flush=True)
            return
        if not run.checkpoint.exists():  # a block that was begun is finished as it is
            run = replace(run, seeds=missing)
        parameters = {"study": study_parameter(study), "schedule": run.arm.name, "seeds": list(run.seeds)}
        parameters |= {"results": from_notebooks(run.results), "device": run.device, "threads": run.threads}
        parameters["precision"] = run.study.precision
        try:
            load_checkpoint(run)
        except checkpoints.Damaged as error:  # told here, where it is seen; the notebook then starts again
            print(error, file=sys.stderr, flush=True)
        os.environ["OMP_NUM_THREADS"] = str(run.threads)  # the kernel inherits it
        with progress_lines(run):
            execute("run.ipynb", run.folder / "runs" / f"{run.name}.ipynb", parameters)
    for seed in missing:
        if not is_complete(run, seed):
            raise Failed(f"{run.name}: the notebook ended without leaving {run.record(seed)}")
    seconds = time.monotonic() - start
    paths = record_paths(run.study, run.results)
    found = f"{sum(path.exists() for path in paths)} of {len(paths)} records"
    if not set(run.seeds) <= set(run.study.seeds):  # not among those that the study counts
        found = ", ".join(str(run.record(seed)) for seed in missing)
    elif left := time_left(run, seconds):
        found += f", about {left} left"
    notebook = run.folder / "runs" / f"{run.name}.ipynb"
    print(f"{run.name}: done in {clock(seconds)} ({found}), see {notebook}", flush=True)


def time_left(run: Run, seconds: float) -> str | None:
    """How long the study's missing runs will take if they go as this one of `seconds` did, with as many at a time."""
    work = 0
    for arm in run.study.schedules:
        every = Run(run.study, arm, run.study.seeds, run.results)
        missing = tuple(seed for seed in run.study.seeds if not every.record(seed).exists())
        work += forward_passes(replace(every, seeds=missing)) if missing else 0
    return clock(seconds * work / forward_passes(run) / (1 + len(at_work(run.folder)))) if work else None


def record_paths(study: Study, results: Path) -> list[Path]:
    """The records that make the study complete."""
    return [Run(study, arm, (seed,), results).record(seed) for arm in study.schedules for seed in study.seeds]


def execute_report(study: Study, results: Path, given: str | None = None) -> Path:
    """Build the study's report from its records; returns the path of the HTML page. Raises Damaged on a bad record.

    `given` is the name or path that the study was loaded by (default: its name).
    """
    from grok_utils.report import export_html  # nbconvert takes a second to load, which a run need not wait for

    planned_runs(study, results)
    folder = results / study.name
    executed = folder / "report.ipynb"
    parameters = {"study": study_parameter(given or study.name), "results": from_notebooks(results)}
    with alone(folder, "report"):
        execute("report.ipynb", executed, parameters | {"precision": study.precision})
        export_html(executed, folder / "report.html", study.title or study.name)
    return folder / "report.html"


def execute_evidence(results: Path) -> Path:
    """Build the evidence's page from the records of its studies that exist; returns the path of the HTML page."""
    from grok_utils.report import export_html

    executed = results / "evidence" / "report.ipynb"
    with alone(executed.parent, "report"):
        execute("evidence.ipynb", executed, {"results": from_notebooks(results)})
        export_html(executed, executed.with_suffix(".html"))
    return executed.with_suffix(".html")


def print_report(study: Study, results: Path, given: str | None = None) -> Path:
    """Print the study's report, built where it is absent; returns the PDF's path. Raises BadInput without Chromium."""
    find_chromium()  # told before any work
    html = results / study.name / "report.html"
    if not html.exists():
        execute_report(study, results, given)
    with alone(html.parent, "report"):
        print_pdf(html, html.with_suffix(".pdf"))
    return html.with_suffix(".pdf")
