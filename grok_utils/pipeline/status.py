"""What of a study is done, running, failed and still to do, and how long that takes; a run's progress as it goes."""

import contextlib
import re
import statistics
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from grok_utils.engine.machine import forward_passes
from grok_utils.pipeline.plan import PART, Pending, pending_runs
from grok_utils.store.records import read_record
from grok_utils.studies import Run, Study, runs_of

REPORT_SECONDS = 30.0  # between two lines of progress of a run
LOOK_SECONDS = 2.0  # between two looks at its notebook


def clock(seconds: float) -> str:
    """Such as 0:04:31, which is never taken for hours and minutes."""
    return str(timedelta(seconds=round(seconds)))


def time_left(study: Study, left: str) -> str:
    """Such as `about 0:04:31 left`; at most so long where runs may end early."""
    return f"{'about' if study.stop_after is None else 'at most'} {left} left"


def progress_shown(run: Run) -> str | None:
    """How far the run's notebook shows it, which papermill saves now and then while it executes it; None as yet."""
    with contextlib.suppress(OSError):
        text = run.notebook.with_suffix(PART).read_text(encoding="utf-8", errors="replace")  # half a letter, too
        span = r"((?:\d+ days?, )?[\d:]+)"
        if bars := re.findall(rf"([\d,]+ of [\d,]+ updates)  {span}, {span} left", text):  # as `Progress` shows them
            return f"{bars[-1][0]}, {time_left(run.study, bars[-1][2])}"
    return None


@contextlib.contextmanager
def progress_lines(run: Run) -> Iterator[None]:
    """Print where the run is, one line now and then, as its notebook shows it."""
    finished = threading.Event()

    def watch() -> None:
        seen, due = progress_shown(run), 0.0  # of an execution that failed
        while not finished.wait(LOOK_SECONDS):
            shown = progress_shown(run)
            if shown not in (None, seen) and time.monotonic() > due:
                seen, due = shown, time.monotonic() + REPORT_SECONDS
                print(f"{run.name}: {shown}")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def left_to_do(study: Study, results: Path) -> tuple[int, float]:
    """How many of the study's records are there, and the forward passes that the others take."""
    found, work = 0, 0.0
    for every in runs_of(study, results):
        there = sum(every.record(seed).exists() for seed in every.seeds)
        found, work = found + there, work + forward_passes(every) * (1 - there / len(every.seeds))
    return found, work


def line_of(p: Pending) -> str:
    """Where a pending run is, in words."""
    where = f"{p.updates:,} of {p.run.study.updates:,} updates"
    if p.state == "running":
        at_checkpoint = f"{where} at its last checkpoint" if p.updates else "no checkpoint yet"
        said = f", {progress_shown(p.run) or at_checkpoint}"
    elif p.state == "failed":
        said = f" after {where}: {p.failure} (see {p.run.notebook.with_suffix(PART)})"
    else:
        said = f" after {where}" if p.state == "stopped" else ""
    return f"{p.run.name}: {p.state}{said}"


def status_lines(study: Study, results: Path, given: str | None = None) -> list[str]:
    """A line for each run that is running, failed, stopped or not begun; then what is done, left, and to do next.

    `given` is the name or path that the study was loaded by (default: its name).
    """
    pending = pending_runs(study, results)
    recorded = [  # seconds a forward pass
        sum(m["seconds"] * m["share"] for m in made) * len(every.seeds) / forward_passes(every, made[0].get("ended"))
        for every in runs_of(study, results)
        for path in filter(Path.exists, map(every.record, every.seeds))
        for made in [read_record(path)[1]["made"]]
    ]
    paces = recorded + [p.seconds / forward_passes(p.run, p.updates) for p in pending if p.updates]
    summary = f"{study.name}: {len(recorded)} of {len(study.arms) * len(study.seeds)} records complete"
    states = [p.state for p in pending]
    running = states.count("running")
    summary += "".join(f", {n} {word}" for word in ("running", "failed") if (n := states.count(word)))
    if pending and paces:
        work = sum(forward_passes(p.run) - forward_passes(p.run, p.updates) for p in pending)
        summary += f"; {time_left(study, clock(work * statistics.median_high(paces) / max(1, running)))}"
        summary += "" if running else ", divided by the runs at a time"
    report = results / study.name / "report.html"
    of = f"STUDY={given or study.name}" + (f" RESULTS={results}" if results != Path("results") else "")
    if pending and not running:
        summary += f"; make all {of} goes on"
    elif not pending:
        summary += f"; read {report}" if report.exists() else f"; make report {of} builds the report"
    return [*map(line_of, pending), summary]
