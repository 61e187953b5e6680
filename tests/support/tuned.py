"""Synthetic members of stage 3, and the table of stage 2 that chose their cells."""

import numpy as np
import pandas as pd

SIZES = {"constant-128": 128, "baseline": 512, "constant-2048": 2048}
CELL = {"learning_rate": 0.008, "weight_decay": 0.5}


def spread(middle: float, sd: float = 0.05, seeds: int = 30, stream: int = 0) -> np.ndarray:
    """Times of seeds whose geometric mean is exactly `middle` and whose logs have this standard deviation."""
    x = np.random.default_rng(stream).normal(size=seeds)
    return middle * np.exp(sd * (x - x.mean()) / x.std(ddof=1))


def stage_3(times: dict, operation: str = "x_plus_y", outcome: str = "touch", horizon: int = 2000, end: int = 2000):
    """Members as `decisions.at_horizon` gives, of {arm: times of seeds 0, 1, …}, each at CELL; beyond `horizon` they do
    not reach. The batch of an arm without a constant size is 256."""
    parts = []
    for arm, of in times.items():
        rows = pd.DataFrame({"seed": np.arange(len(of)), "updates": np.asarray(of, float)})
        size, reached = SIZES.get(arm, 256), rows["updates"] <= horizon
        rows["restricted"], rows["updates"] = rows["updates"].clip(upper=horizon), rows["updates"].where(reached)
        rows["restricted_examples"], rows["examples_seen"] = size * rows["restricted"], size * rows["updates"]
        parts.append(rows.assign(schedule=arm, reached=reached))
    table = pd.concat(parts, ignore_index=True)
    cell = {"operation": operation, "outcome": outcome, "cell": "", "diverged": False, "horizon": end}
    return table.assign(**cell, **CELL, final_accuracy=0.5 + 0.001 * (table["seed"] % 7))


def stage_2(members: pd.DataFrame, comparator: str = "constant-128", second_to_first: float = 1.0) -> pd.DataFrame:
    """Stage 2's choice of CELL for every arm of `members` but on x − y, with their means as its own."""
    of = members[members["operation"] != "x_minus_y"]
    of = of[(of["operation"] != "permutation") | (of["outcome"] == "touch")]
    rows = of.groupby(["operation", "schedule", "outcome"], as_index=False).agg(mean=("restricted", "mean"))
    return rows.assign(**CELL, eligible=True, second_to_first=second_to_first, comparator=comparator)
