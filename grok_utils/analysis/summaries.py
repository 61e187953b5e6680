"""A study's numbers by cell: time to 99 %, final metrics, and paired contrasts with the reference arm."""

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import CELL, MEMBER, by_cell, crossings, pairs
from grok_utils.analysis.intervals import mean_interval, share_interval

FINAL = {
    "final_train_loss": "train_loss",
    "final_val_loss": "val_loss",
    "final_train_acc": "train_accuracy",
    "final_val_acc": "val_accuracy",
}
RMST = "step_val_acc_99"  # the original's name of it


def summarise(members: pd.DataFrame) -> pd.DataFrame:
    """Time to 99 % of each cell of `crossings`: operation, schedule, n, reached, diverged, rmst, share, median, ….

    rmst and share come with rmst_low to share_high, their 95 % intervals. median is NaN where half of the members or
    more never reached it; examples_seen is the mean at the crossing, of those that did.
    """
    rows = []
    for key, cell in by_cell(members):
        n, reached, horizon = len(cell), int(cell["reached"].sum()), int(cell["horizon"].iloc[0])
        rmst = mean_interval(cell["restricted"], least=0, greatest=horizon)
        share_low, share_high = share_interval(reached, n)
        median = np.median(cell["updates"].fillna(np.inf))
        row = key | {"n": n, "reached": reached, "diverged": int(cell["diverged"].sum())}
        row |= {"rmst": rmst.mean, "rmst_low": rmst.low, "rmst_high": rmst.high}
        row |= {"share": reached / n, "share_low": share_low, "share_high": share_high}
        row |= {"median": median if np.isfinite(median) else np.nan}
        rows.append(row | {"examples_seen": cell["examples_seen"].mean(), "horizon": horizon})
    return pd.DataFrame(rows)


def share_by_update(members: pd.DataFrame) -> pd.DataFrame:
    """Share grokked by each update, the empirical distribution of the crossings: a row wherever it steps, and at both
    ends. Columns: operation, schedule, n, update, share."""
    tables = []
    for key, cell in by_cell(members):
        crossed = cell["updates"].dropna()
        updates = np.unique(np.r_[0, crossed, cell["horizon"].iloc[0]]).astype(int)
        share = [(crossed <= u).sum() / len(cell) for u in updates]
        tables.append(pd.DataFrame(key | {"n": len(cell), "update": updates, "share": share}))
    return pd.concat(tables, ignore_index=True)


def metrics_by_member(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a member and metric, by the original's names: operation, schedule, seed, metric, value."""
    last = frame.sort_values("update").groupby(MEMBER).tail(1).set_index(MEMBER)  # .last() would skip over NaN
    wide = last[list(FINAL.values())].set_axis(list(FINAL), axis=1)
    wide[RMST] = crossings(frame).set_index(MEMBER)["restricted"]
    return wide.reset_index().melt(MEMBER, var_name="metric")


def final_metrics(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of each metric at the last log: operation, schedule, metric, n, mean, sd, low, high.

    `step_val_acc_99` is the RMST. Values that are not finite are left out, and n counts the others.
    """
    rows = []
    for key, cell in by_cell(metrics_by_member(frame), ["metric"]):
        greatest = frame["update"].max() if key["metric"] == RMST else 1 if key["metric"].endswith("acc") else np.inf
        rows.append(key | mean_interval(cell["value"], least=0, greatest=greatest)._asdict())
    return pd.DataFrame(rows)


def paired_differences(members: pd.DataFrame, reference: str = "baseline") -> pd.DataFrame:
    """Each arm's RMST less the reference arm's, paired by seed, in updates.

    Columns: operation, schedule, n (common seeds), difference, low, high, percent (of the reference's RMST), verdict:
    sooner or later where the interval excludes 0, otherwise cannot tell. No rows without the reference arm.
    """
    rows = []
    for key, cell in by_cell(members[members["schedule"] != reference]):
        both = pairs(members, key["schedule"], reference, key["operation"])
        horizon = cell["horizon"].max()  # no two restricted times are further apart
        n, mean, _, low, high = mean_interval(both["arm"] - both["reference"], -horizon, horizon)
        if n:
            verdict = "sooner" if high < 0 else "later" if low > 0 else "cannot tell"
            row = key | {"n": n, "difference": mean, "low": low, "high": high}
            rows.append(row | {"percent": 100 * mean / both["reference"].mean(), "verdict": verdict})
    return pd.DataFrame(rows, columns=[*CELL, "n", "difference", "low", "high", "percent", "verdict"])
