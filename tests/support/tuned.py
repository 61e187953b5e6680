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
    """Members as `decisions.at_horizons` gives, of {arm: times of seeds 0, 1, …}, each at CELL; beyond `horizon` they
    do not reach. The batch of an arm without a constant size is 256."""
    lengths = [len(of) for of in times.values()]
    table = pd.DataFrame({"schedule": np.repeat(list(times), lengths), "updates": np.concatenate([*times.values()])})
    table["seed"] = np.concatenate([np.arange(n) for n in lengths])
    size, table["reached"] = table["schedule"].map(SIZES).fillna(256), table["updates"] <= horizon
    table["restricted"] = table["updates"].clip(upper=horizon).astype(float)
    table["updates"] = table["updates"].where(table["reached"]).astype(float)
    table["restricted_examples"], table["examples_seen"] = size * table["restricted"], size * table["updates"]
    cell = {"operation": operation, "outcome": outcome, "cell": "", "diverged": False, "horizon": end}
    return table.assign(**cell, **CELL, final_accuracy=0.5 + 0.001 * (table["seed"] % 7))


def stage_2(members: pd.DataFrame, comparator: str = "constant-128", second_to_first: float = 1.0) -> pd.DataFrame:
    """Stage 2's choice of CELL for every arm of `members` but on x − y, with their means as its own."""
    of = members[members["operation"] != "x_minus_y"]
    of = of[(of["operation"] != "permutation") | (of["outcome"] == "touch")]
    rows = of.groupby(["operation", "schedule", "outcome"], as_index=False).agg(mean=("restricted", "mean"))
    return rows.assign(**CELL, eligible=True, second_to_first=second_to_first, comparator=comparator)
