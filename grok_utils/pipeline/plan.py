"""What of a study has no record yet: the runs at work, failed, stopped and not begun; and in which runs to make it."""

import contextlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grok_utils.engine.machine import cores, on_cuda, runs_that_fit
from grok_utils.errors import Damaged
from grok_utils.pipeline.locks import at_work
from grok_utils.pipeline.settings import check_seeds
from grok_utils.store import checkpoints
from grok_utils.store.records import is_complete
from grok_utils.studies import Run, Study, runs_of

PART = ".part.ipynb"  # of a notebook that is executed just now, or whose execution failed
STATES = ("running", "failed", "stopped", "not begun")


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


def side_by_side(runs: list[Run], threads: int) -> int:
    """How many of the runs go on at a time: as a GPU's memory holds, each with a core; else one for `threads` cores."""
    if on_cuda(runs[0].device):
        return min(runs_that_fit(runs), len(runs), cores())
    return max(1, cores() // threads)
