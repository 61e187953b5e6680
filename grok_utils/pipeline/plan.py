"""What of a study is still to be made, in which runs, and who works on what: one process on a record at a time."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from grok_utils.engine.machine import on_cuda, runs_that_fit
from grok_utils.errors import BadInput, Damaged
from grok_utils.pipeline.settings import check_seeds
from grok_utils.store import checkpoints
from grok_utils.store.records import is_complete
from grok_utils.studies import Run, Study, runs_of


def record_paths(study: Study, results: Path) -> list[Path]:
    """The records that make the study complete."""
    return [run.record(seed) for run in runs_of(study, results) for seed in study.seeds]


def planned_runs(study: Study, results: Path, seeds_per_run: int = 1, device: str = "auto") -> list[Run]:
    """The runs whose records are missing, most work first; every arm's missing seeds in blocks of `seeds_per_run`.

    A block that was begun stays as it is. Raises Damaged where a record is there but is not valid.
    """
    runs = []
    for every in runs_of(study, results, device):
        missing = [seed for seed in study.seeds if not is_complete(every, seed)]
        for run in begun_runs(every):
            if set(run.seeds) & set(missing):
                missing = [seed for seed in missing if seed not in run.seeds]
                runs.append(run)
        for i in range(0, len(missing), seeds_per_run):
            runs.append(replace(every, seeds=tuple(missing[i : i + seeds_per_run])))
    return sorted(runs, key=lambda run: -run.courses.batch_size.sum())


def begun_runs(every: Run) -> Iterator[Run]:
    """The runs of an arm that have a checkpoint; `every` is the run of all its seeds."""
    for path in sorted((every.folder / "checkpoints").glob(f"{every.arm.name}-seed*.safetensors")):
        with contextlib.suppress(Damaged, KeyError, TypeError, BadInput):
            run = replace(every, seeds=check_seeds(checkpoints.read_metadata(path)["seeds"]))
            if run.checkpoint == path and set(run.seeds) <= set(every.seeds):
                yield run


def side_by_side(runs: list[Run], threads: int) -> int:
    """How many of the runs go on at a time here: on a GPU as many as its memory holds, else one for `threads` cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if on_cuda(runs[0].device):
        return min(runs_that_fit(runs), len(runs), cores)
    return max(1, cores // threads)
