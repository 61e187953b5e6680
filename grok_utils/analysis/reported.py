"""The original study's reported numbers, and where they lie beside this study's."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from grok_utils.analysis.intervals import CONFIDENCE
from grok_utils.analysis.summaries import final_metrics
from grok_utils.schedules import SCHEDULES
from grok_utils.studies import BATCH_RANGE, HYPER, Arm, Cell, Scheduled, Settings, Shape, Study

REPORTED_SEEDS = 3


@cache
def reported_results() -> pd.DataFrame:
    """The original's means over 3 seeds: schedule, operation, metric, reported."""
    arms = json.loads(Path(__file__).with_name("reported_results.json").read_text())["arms"]
    rows = [(o, a, m, v) for a, of in arms.items() for o, metrics in of.items() for m, v in metrics.items()]
    return pd.DataFrame(rows, columns=["operation", "schedule", "metric", "reported"])


REPORTED_ARMS = tuple(reported_results()["schedule"].unique())


def reported_mean(arm: str, operation: str, metric: str) -> float:
    """The original's mean over 3 seeds; NaN of what it did not report."""
    table = reported_results().set_index(["operation", "schedule", "metric"])["reported"]
    return float(table.get((operation, arm, metric), np.nan))


def unlike_protocol(study: Study) -> list[str]:
    """How a study's reported arms differ from the original's, in words; empty where its numbers can be compared."""
    T, told = Study.updates, []
    other: dict[str, list[str]] = {}  # by hyper-parameter, the arms whose course is another
    if study.updates != T:
        told.append(f"updates {study.updates:,} instead of {T:,}")
    arms = [a for a in study.arms if a.name in REPORTED_ARMS]
    for arm in arms:  # the original's numbers were made with the defaults of all settings
        sizes = Scheduled(arm.name, **BATCH_RANGE) if arm.name in SCHEDULES else Settings.batch_size
        like = Arm(arm.name, Settings(batch_size=sizes), (Cell((), Settings.operations),))
        for name in ("modulus", "train_fraction", "optimizer", "warm_up", *Shape._fields):
            here, there = getattr(arm.settings, name), getattr(like.settings, name)
            told += [f"{name} {here} instead of {there}"] if here != there else []
        for name in HYPER:
            usual = like.course(name, T, Settings.operations[0], like.cells[0])
            if any((course != usual).any() for course in arm.courses(name, T).values()):
                other.setdefault(name.replace("_", " "), []).append(arm.name)
    told += [f"another {n}" + (f" ({', '.join(of)})" if len(of) < len(arms) else "") for n, of in other.items()]
    return list(dict.fromkeys(told))


def beside_reported(frame: pd.DataFrame) -> pd.DataFrame:
    """Reported means beside ours, for the arms and operations in both: the columns of `final_metrics`, reported,
    predicted_low, predicted_high and verdict.

    A mean of 3 further seeds falls into mean ± t(0.975, n − 1) · sd · √(1/n + 1/3) with 95 % probability (prediction
    interval of a mean, normal errors). `agrees` or `differs` says whether the reported mean does; where there is no
    interval (n < 2, or all values equal) only equality agrees, and otherwise one cannot tell.
    """
    table = final_metrics(frame).query("n > 0").merge(reported_results())
    n, sd = table["n"], table["sd"].where(table["sd"] > 0)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * sd * np.sqrt(1 / n + 1 / REPORTED_SEEDS)
    apart = (table["reported"] - table["mean"]).abs()
    table["predicted_low"], table["predicted_high"] = table["mean"] - half, table["mean"] + half
    agrees = (apart <= half) | (apart == 0)
    table["verdict"] = np.select([agrees, apart > half], ["agrees", "differs"], "cannot tell")
    return table
