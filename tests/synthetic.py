"""Synthetic studies whose truth is known: records, and rows a member, of members that cross 99 % at a given update."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from grok_utils.records import settings, write_record
from grok_utils.schedules import BLOCK
from grok_utils.studies import Arm, Run, Study

Crossing = Callable[[Study, Arm, str, int], float]  # (study, arm, operation, seed) -> update; beyond the last: never
PROVENANCE = {
    "device": "cpu",
    "device_name": "A <processor>",
    "compiled": False,
    "threads": 1,
    "platform": "Linux",
    "versions": {"torch": "2.13.0", "cuda": None},
    "commit": None,
    "dirty": None,
    "started": "2026-01-02T03:04:05+00:00",
    "schema_version": 1,
}


def rows(run: Run, operation: str, seed: int, crossing: float, final: float = 0.999) -> pd.DataFrame:
    """A member that climbs to `final` at update `crossing` and stays; one that never does ends at a low accuracy."""
    update = BLOCK * np.arange(1, len(run.batch_sizes) + 1)
    above = update >= crossing
    row = {"schedule": run.arm.name, "operation": operation, "seed": seed, "update": update}
    row |= {"batch_size": run.batch_sizes, "examples_seen": BLOCK * run.batch_sizes.cumsum()}
    row |= {"train_loss": 1 / update, "train_accuracy": 1.0, "val_loss": np.where(above, 0.01, 2)}
    climb = 0.2 + 0.6 * np.minimum(update / crossing, 1)
    return pd.DataFrame(row | {"val_accuracy": np.where(above, final, climb), "diverged": False})


def write_study(results: Path, study: Study, crossing: Crossing) -> None:
    """A record for each arm and seed of the study, whose members cross where `crossing` says."""
    for arm in study.schedules:
        run = Run(study, arm, study.seeds, results)
        about = settings(run) | PROVENANCE | {"schedule": arm.name, "members": len(study.operations), "seconds": 90.0}
        for seed in study.seeds:
            members = [rows(run, o, seed, crossing(study, arm, o, seed)) for o in study.operations]
            write_record(run.record(seed), pd.concat(members), about | {"seed": seed})
