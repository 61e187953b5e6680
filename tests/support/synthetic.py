"""Synthetic studies whose truth is known: records, and rows a member, of members that cross 99 % at a given update."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grok_utils.measures import columns_of
from grok_utils.schedules import BLOCK
from grok_utils.store.records import rows_of, write_record
from grok_utils.studies import Arm, Run, Study, runs_of

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
    "precision": "float32",
    "started": "2026-01-02T03:04:05+00:00",
    "seconds": 90.0,
}


def rows(run: Run, i: int, crossing: float, final: float = 0.999) -> pd.DataFrame:
    """Member number `i` of a run climbs to `final` at update `crossing` and stays; one that never does ends low.

    The k-th column of the study's measures, from 0 on, is 1 + k and a thousandth of the update.
    """
    update = BLOCK * np.arange(1, run.study.updates // BLOCK + 1)
    above = update >= crossing
    climb = np.where(above, final, 0.2 + 0.6 * np.minimum(update / crossing, 1))
    measured = [1 + k + update / 1000 for k, _ in enumerate(columns_of(run.study.measures))]
    logs = [1 / update, np.ones(len(update)), np.where(above, 0.01, 2), climb, *measured]
    return rows_of(run, i, np.stack(logs, axis=1))


def write_study(results: Path, study: Study, crossing: Crossing, **provenance: Any) -> None:
    """A record for each arm and seed of the study, whose members, in every cell, cross where `crossing` says.

    `provenance` is what its metadata say instead of PROVENANCE.
    """
    for run in runs_of(study, results):
        made = PROVENANCE | {"seeds": list(study.seeds), "share": 1 / len(study.seeds)} | provenance
        table = pd.concat(
            rows(run, i, crossing(study, run.arm, m.operation, m.seed)) for i, m in enumerate(run.members)
        )
        for seed in study.seeds:
            write_record(run, seed, table[table["seed"] == seed], [made])


BASELINE = {"x_plus_y": 2800.0, "x_minus_y": 3900.0, "x_div_y": 4400.0}  # mean updates of a constant batch of 512


@cache
def progress(study: Study, arm: Arm) -> np.ndarray:
    """How far each update has got by the law of `dose_only`, in updates of a constant 512."""
    sizes = arm.course("batch_size", study.updates, arm.settings.operations[0], arm.cells[0])
    return ((np.repeat(sizes, BLOCK) / 512.0) ** -0.25).cumsum()


def dose_only(study: Study, arm: Arm, operation: str, seed: int) -> float:
    """A world in which the batch size of an update decides how far it gets, and growth adds nothing.

    Constant batches of B need BASELINE · (B / 512)^¼ updates, up to the luck of a seed, which arms share, and that of
    an arm, which they don't. Nothing groks `permutation`.
    """
    if operation not in BASELINE:
        return np.inf
    luck = np.random.default_rng([seed, len(operation)]).normal(1, 0.10)
    own = np.random.default_rng([seed, *f"{arm.name} {operation}".encode()]).normal(1, 0.06)
    reached = np.searchsorted(progress(study, arm), BASELINE[operation] * luck * own)
    return BLOCK * np.ceil((reached + 1) / BLOCK) if reached < study.updates else np.inf


def growth_helps(study: Study, arm: Arm, operation: str, seed: int) -> float:
    """As `dose_only`, but `linear` itself needs a third less, whatever its batch sizes."""
    time = dose_only(study, arm, operation, seed)
    return BLOCK * np.ceil(time / 15) if arm.name == "linear" else time


def member(arm: str, seed: int, accuracy: list[float], operation: str = "x_plus_y", diverged: int | None = None):
    """Rows of one member with the given validation accuracies, one a log; diverged from log number `diverged` on."""
    n = len(accuracy)
    frame = pd.DataFrame({"schedule": arm, "operation": operation, "seed": seed, "update": 10 * np.arange(1, n + 1)})
    frame["cell"], frame["batch_size"], frame["examples_seen"] = "", 32, 320 * np.arange(1, n + 1)
    for column, values in {"train_loss": 0.5, "train_accuracy": 1.0, "val_loss": 1.0 + seed}.items():
        frame[column] = np.full(n, values, np.float32)
    frame["val_accuracy"] = np.array(accuracy, np.float32)
    frame["diverged"] = np.arange(n) >= (n if diverged is None else diverged)
    return frame


def crossing(seed: int, update: int, arm: str = "baseline", logs: int = 10, operation: str = "x_plus_y"):
    """A member that stays above 99 % from `update` on."""
    return member(arm, seed, [1.0 if u >= update else 0.5 for u in range(10, 10 * logs + 1, 10)], operation)
