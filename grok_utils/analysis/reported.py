"""The original study's reported numbers, and where they lie beside this study's."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from grok_utils.analysis.intervals import CONFIDENCE
from grok_utils.analysis.summaries import final_metrics
from grok_utils.schedules import SCHEDULES
from grok_utils.studies import BATCH_RANGE, DEFAULTS, HYPER, Scheduled, Shape, Study

REPORTED_SEEDS = 3
# Means over these: operation, schedule, metric, reported.
REPORTED = pd.read_csv(Path(__file__).with_name("reported_results.csv"), comment="#")
REPORTED_ARMS = tuple(REPORTED["schedule"].unique())


def reported_mean(arm: str, operation: str, metric: str) -> float:
    """The original's mean over 3 seeds; NaN of what it did not report."""
    table = REPORTED.set_index(["operation", "schedule", "metric"])["reported"]
    return float(table.get((operation, arm, metric), np.nan))


def unlike_protocol(study: Study) -> list[str]:
    """How a study's reported arms differ from the original's, in words; empty where its numbers can be compared."""
    T, arms = Study.updates, [a for a in study.arms if a.name in REPORTED_ARMS]
    told = [f"updates {study.updates:,} instead of {T:,}"] if study.updates != T else []
    other: dict[str, list[str]] = {}  # by hyper-parameter, the arms whose course is another
    for arm in arms:  # the original's numbers were made with the defaults of all settings
        for name in ("modulus", "train_fraction", "optimizer", "warm_up", *Shape._fields):
            here = getattr(arm.settings, name)
            told += [f"{name} {here} instead of {DEFAULTS[name]}"] if here != DEFAULTS[name] else []
        scheduled = arm.name in SCHEDULES
        usual = DEFAULTS | ({"batch_size": Scheduled(arm.name, **BATCH_RANGE).values(T, True)} if scheduled else {})
        for name in HYPER:
            if any((course != usual[name]).any() for course in arm.courses(name, T).values()):
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
    table = final_metrics(frame).query("n > 0").merge(REPORTED)
    n, sd = table["n"], table["sd"].where(table["sd"] > 0)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * sd * np.sqrt(1 / n + 1 / REPORTED_SEEDS)
    apart = (table["reported"] - table["mean"]).abs()
    table["predicted_low"], table["predicted_high"] = table["mean"] - half, table["mean"] + half
    agrees = (apart <= half) | (apart == 0)
    table["verdict"] = np.select([agrees, apart > half], ["agrees", "differs"], "cannot tell")
    return table
