"""What of a study has no record yet: the runs at work, failed, stopped and not begun, and how far they are.

And what follows from it: in which runs to make it, how long that takes, and what a run says while it goes on.
"""

import contextlib
import json
import re
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from grok_utils.engine.machine import cores, forward_passes, on_cuda, runs_that_fit
from grok_utils.errors import Damaged
from grok_utils.pipeline.locks import at_work
from grok_utils.pipeline.settings import check_seeds
from grok_utils.store import checkpoints
from grok_utils.store.records import is_complete, read_record
from grok_utils.studies import Run, Study, runs_of

PART = ".part.ipynb"  # of a notebook that is executed just now, or whose execution failed
STATES = ("running", "failed", "stopped", "not begun")
REPORT_SECONDS = 30.0  # between two lines of progress of a run
LOOK_SECONDS = 2.0  # between two looks at its notebook


@dataclass(frozen=True)
class Pending:
    """A run whose records are not all there."""

    run: Run
    missing: set[int]  # the seeds whose records are not there
    state: str  # one of STATES
    failure: str | None = None  # why its last execution failed
    updates: int = 0  # that its checkpoint holds
    seconds: float = 0.0  # of training until then


def begun_runs(every: Run) -> dict[Run, dict[str, Any]]:
    """The runs of seeds of `every` that left a checkpoint or half a notebook, with what these tell of each.

    That is the updates and seconds of its checkpoint, and why it failed, where it did.
    """
    found: dict[Run, dict[str, Any]] = {}
    patterns = f"checkpoints/{every.arm.name}-seed*.safetensors", f"runs/{every.arm.name}-seed*{PART}"
    for path in (path for pattern in patterns for path in sorted(every.folder.glob(pattern))):
        with contextlib.suppress(Damaged, OSError, ValueError, KeyError, TypeError):  # being written just now, say
            if path.suffix == ".safetensors":
                about = checkpoints.read_metadata(path)
            else:
                about = json.loads(path.read_text(encoding="utf-8"))["metadata"]["papermill"]
                about |= about["parameters"]
            run = replace(every, seeds=check_seeds(about["seeds"]))
            if path in (run.checkpoint, run.notebook.with_suffix(PART)) and set(run.seeds) <= set(every.seeds):
                found[run] = found.get(run, {}) | about
    return found


def pending_runs(study: Study, results: Path, device: str = "auto") -> list[Pending]:
    """What of the study has no record yet: the runs at work, then those that failed, were stopped or are not begun.

    An arm's seeds that nothing was begun for are one run, and so are those that are trained by hand, without a
    checkpoint yet. Raises Damaged where a record is there but is not valid.
    """
    working, pending = at_work(results / study.name), []
    for every in runs_of(study, results, device):
        missing = {seed for seed in study.seeds if not is_complete(every, seed)}
        by_hand = {seed for seed in study.seeds if every.record(seed).stem in working}
        begun = []
        for run, about in begun_runs(every).items():
            failure, updates, seconds = about.get("failed"), about.get("updates", 0), about.get("seconds", 0.0)
            state = "running" if by_hand.issuperset(run.seeds) else "failed" if failure else "stopped"
            begun.append(Pending(run, missing & set(run.seeds), state, failure, updates, seconds))
        # A seed belongs to one run: the one at work on it, else the one that got furthest.
        for found in sorted(begun, key=lambda p: (p.state == "running", p.updates), reverse=True):
            if missing & found.missing:
                pending.append(replace(found, missing=missing & found.missing))
                missing -= found.missing
        for state, seeds in (("running", missing & by_hand), ("not begun", missing - by_hand)):
            if seeds:
                pending.append(Pending(replace(every, seeds=tuple(sorted(seeds))), seeds, state))
    return sorted(pending, key=lambda p: STATES.index(p.state))


def planned_runs(study: Study, results: Path, seeds_per_run: int = 1, device: str = "auto") -> list[Run]:
    """The runs whose records are missing, most work first; an arm's missing seeds in blocks of `seeds_per_run`.

    A block with a checkpoint stays as it is. Raises Damaged where a record is there but is not valid.
    """
    runs = []
    for p in pending_runs(study, results, device):
        seeds = sorted(p.missing)
        blocks = [seeds[i : i + seeds_per_run] for i in range(0, len(seeds), seeds_per_run)]
        runs += [p.run] if p.run.checkpoint.exists() else [replace(p.run, seeds=tuple(block)) for block in blocks]
    return sorted(runs, key=lambda run: -run.courses.batch_size.sum())


def all_begun(study: Study, results: Path) -> bool:
    """Whether each record of the study is there or at work."""
    working = at_work(results / study.name)
    records = (run.record(seed) for run in runs_of(study, results) for seed in run.seeds)
    return all(record.stem in working or record.exists() for record in records)


def side_by_side(runs: list[Run], threads: int) -> int:
    """How many of the runs go on at a time: as a GPU's memory holds, each with a core; else one for `threads` cores."""
    if on_cuda(runs[0].device):
        return min(runs_that_fit(runs), len(runs), cores())
    return max(1, cores() // threads)


# --- how far it is ---------------------------------------------------------------------------------------------------


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
