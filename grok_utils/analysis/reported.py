"""The original study's reported numbers, and where they lie beside this study's."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from grok_utils.analysis.intervals import CONFIDENCE
from grok_utils.analysis.summaries import final_metrics

REPORTED_SEEDS = 3
# The settings under which the original's numbers were made; under others they do not apply.
PROTOCOL = {
    "updates": 7500,
    "schedule_length": 7500,  # None in a record: as long as the run
    "modulus": 97,
    "train_fraction": 0.5,
    "lo": 32,
    "hi": 512,
    "learning_rate": 1e-3,
    "rate_factor": "constant",
    "weight_decay": 0.5,
}


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


def unlike_protocol(metadata: list[dict[str, Any]]) -> list[str]:
    """The settings in which a study's records differ from the original's, in words; empty where it can be compared."""
    like = dict.fromkeys(PROTOCOL)  # of a setting younger than some records, which had its default then
    found = {k: sorted({PROTOCOL[k] if (like | m)[k] is None else m[k] for m in metadata}) for k in PROTOCOL}
    return [f"{k} {', '.join(map(str, v))} instead of {PROTOCOL[k]}" for k, v in found.items() if v != [PROTOCOL[k]]]


def beside_reported(frame: pd.DataFrame) -> pd.DataFrame:
    """Reported means beside ours, for the arms and operations in both: the columns of `final_metrics`, reported,
    predicted_low, predicted_high and verdict.

    A mean of 3 further seeds falls into mean ± t(0.975, n − 1) · sd · √(1/n + 1/3) with 95 % probability (prediction
    interval of a mean, normal errors). `agrees` or `differs` says whether the reported mean does; where there is no
    interval (n < 2, or all values equal) only equality agrees, and otherwise one cannot tell.
    """
    table = final_metrics(frame).merge(reported_results())
    n, sd = table["n"], table["sd"].where(table["sd"] > 0)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * sd * np.sqrt(1 / n + 1 / REPORTED_SEEDS)
    apart = (table["reported"] - table["mean"]).abs()
    table["predicted_low"], table["predicted_high"] = table["mean"] - half, table["mean"] + half
    agrees = (apart <= half) | (apart == 0)
    table["verdict"] = np.select([agrees, apart > half], ["agrees", "differs"], "cannot tell")
    return table
