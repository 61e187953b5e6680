"""What of a study is done, running, failed and still to do, and how long that takes; a run's progress as it goes."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from grok_utils.engine.machine import forward_passes, work_by_block
from grok_utils.errors import BadInput, Damaged
from grok_utils.pipeline.locks import at_work, is_at_work
from grok_utils.pipeline.plan import begun_runs, record_paths
from grok_utils.pipeline.settings import check_seeds
from grok_utils.schedules import BLOCK
from grok_utils.store import checkpoints
from grok_utils.store.records import is_complete, read_record
from grok_utils.studies import Run, Study, runs_of

REPORT_SECONDS = 30.0  # between two lines of progress of a run
LOOK_SECONDS = 2.0  # between two looks at its checkpoint


def share_done(run: Run, updates: int) -> float:
    """The share of the run's forward passes that its first `updates` take: of a batch that grows, the cheaper ones."""
    work = work_by_block(run)
    return work[: updates // BLOCK].sum() / work.sum()


def run_left(run: Run, updates: int, seconds: float) -> str:
    """How long the rest of the run takes, whose first `updates` took `seconds`."""
    return clock(seconds * (1 / share_done(run, updates) - 1))


def progress_of(run: Run) -> tuple[int, float]:
    """Updates and seconds of training that the run's checkpoint holds; none of both where there is none."""
    try:
        metadata = checkpoints.read_metadata(run.checkpoint)
        return metadata["updates"], metadata["seconds"]
    except (Damaged, KeyError, TypeError):  # of an older version, say
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
                left = run_left(run, done, seconds)
                print(f"{run.name}: {done:,} of {total:,} updates, about {left} left", flush=True)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def time_left(run: Run, seconds: float) -> str | None:
    """How long the study's missing runs will take if they go as this one of `seconds` did, with as many at a time."""
    work = 0
    for every in runs_of(run.study, run.results):
        missing = tuple(seed for seed in run.study.seeds if not every.record(seed).exists())
        work += forward_passes(replace(every, seeds=missing)) if missing else 0
    others = len(at_work(run.folder)) // len(run.seeds)  # runs that hold as many records
    return clock(seconds * work / forward_passes(run) / (1 + others)) if work else None


@dataclass(frozen=True)
class Pending:
    """A run whose records are not all there."""

    run: Run
    running: bool = False
    begun: bool = False
    failure: str | None = None  # why its last execution failed
    updates: int = 0  # that its checkpoint holds
    seconds: float = 0.0  # of training until then

    def __str__(self) -> str:
        where = f"{self.updates:,} of {self.run.study.updates:,} updates"
        if self.running and self.updates:
            left = run_left(self.run, self.updates, self.seconds)
            return f"{self.run.name}: running, {where} at its last checkpoint, about {left} left then"
        if self.running:
            return f"{self.run.name}: running, no checkpoint yet"
        if self.failure:
            part = self.run.folder / "runs" / f"{self.run.name}.part.ipynb"
            return f"{self.run.name}: failed after {where}: {self.failure} (see {part})"
        return f"{self.run.name}: {f'stopped after {where}' if self.begun else 'not begun'}"


def left_notebooks(every: Run) -> Iterator[tuple[Run, str | None]]:
    """The runs of an arm whose notebook is not whole, and why each failed where it did; `every` as in `begun_runs`."""
    for path in sorted((every.folder / "runs").glob(f"{every.arm.name}-seed*.part.ipynb")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, BadInput):  # being written just now
            about = json.loads(path.read_text(encoding="utf-8"))["metadata"]["papermill"]
            run = replace(every, seeds=check_seeds(about["parameters"]["seeds"]))
            if path.name == f"{run.name}.part.ipynb" and set(run.seeds) <= set(every.seeds):
                yield run, about.get("failed")


def pending_runs(study: Study, results: Path) -> list[Pending]:
    """What of the study has no record yet: the runs at work, then those that failed, were stopped or are not begun.

    An arm's seeds that nothing was begun for are one run, and so are those that are trained by hand, without a
    checkpoint yet. Raises Damaged where a record is there but is not valid.
    """
    working, pending = at_work(results / study.name), []
    for every in runs_of(study, results):
        missing = {seed for seed in study.seeds if not is_complete(every, seed)}
        failures = dict(left_notebooks(every))
        begun = {run: failures.get(run) for run in [*failures, *begun_runs(every)]}
        # A seed belongs to one run: the one at work on it, else the one that got furthest.
        runs = []
        for run, failure in begun.items():
            running = is_at_work(run, working)
            runs.append(Pending(run, running, True, None if running else failure, *progress_of(run)))
        for found in sorted(runs, key=lambda p: (p.running, p.updates), reverse=True):
            if missing & set(found.run.seeds):
                missing -= set(found.run.seeds)
                pending.append(found)
        by_hand = {seed for seed in missing if every.record(seed).stem in working}
        for seeds in filter(None, (by_hand, missing - by_hand)):
            pending.append(Pending(replace(every, seeds=tuple(sorted(seeds))), running=seeds is by_hand))
    return sorted(pending, key=lambda p: (not p.running, p.failure is None, not p.begun))


def status_lines(study: Study, results: Path, given: str | None = None) -> list[str]:
    """A line for each run that is running, failed, stopped or not begun; then what is done, left, and to do next.

    `given` is the name or path that the study was loaded by (default: its name).
    """
    pending = pending_runs(study, results)
    paths = record_paths(study, results)
    paces = [p.seconds / (forward_passes(p.run) * share_done(p.run, p.updates)) for p in pending if p.updates]
    for path in paths:
        if path.exists():
            metadata = read_record(path)[1]
            run = Run(study, study.arm(metadata["schedule"]), (metadata["seed"],), results)
            paces.append(sum(m["seconds"] * m["share"] for m in metadata["made"]) / forward_passes(run))
    work = sum(forward_passes(p.run) * (1 - share_done(p.run, p.updates)) for p in pending)
    running, failed = sum(p.running for p in pending), sum(p.failure is not None for p in pending)
    summary = f"{study.name}: {sum(path.exists() for path in paths)} of {len(paths)} records complete"
    summary += "".join(f", {n} {word}" for n, word in ((running, "running"), (failed, "failed")) if n)
    if pending and paces:
        left = clock(work * sorted(paces)[len(paces) // 2] / max(1, running))
        summary += f"; about {left} left" + ("" if running else ", divided by the runs at a time")
    report = results / study.name / "report.html"
    of = f"STUDY={given or study.name}" + (f" RESULTS={results}" if results != Path("results") else "")
    if pending and not running:
        summary += f"; make all {of} goes on"
    elif not pending:
        summary += f"; read {report}" if report.exists() else f"; make report {of} builds the report"
    return [*map(str, pending), summary]


def clock(seconds: float) -> str:
    """Such as 0:04:31, which is never taken for hours and minutes."""
    return str(timedelta(seconds=round(seconds)))
