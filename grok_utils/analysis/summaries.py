"""A study's numbers by arm and cell: time to 99 %, final metrics, contrasts with the reference arm, and best cells."""

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import GROUP, MEMBER, by_cell, cell_values, crossings, ended_early
from grok_utils.analysis.inference import paired_contrast
from grok_utils.analysis.intervals import mean_interval, share_interval

FINAL = {"final_train_loss": "train_loss", "final_val_loss": "val_loss"}
FINAL |= {"final_train_acc": "train_accuracy", "final_val_acc": "val_accuracy"}
RMST = "step_val_acc_99"  # the original's name of it


def summarise(members: pd.DataFrame) -> pd.DataFrame:
    """Time to 99 % of each group of `crossings`: those of GROUP, n, reached, diverged, rmst, share, median, ….

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


def final_metrics(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of each metric at the last log: operation, schedule, cell, metric, n, mean, ….

    Metrics have the original's names; `step_val_acc_99` is the RMST. Values that are not finite are left out, and n
    counts the others; so are all of a cell, a run of which ended early, but for the RMST.
    """
    last = frame.sort_values("update").groupby(MEMBER).tail(1).set_index(MEMBER)  # .last() would skip over NaN
    early = ended_early(frame).groupby(GROUP).transform("any")
    wide = last[list(FINAL.values())].set_axis(list(FINAL), axis=1).mask(early)
    wide[RMST] = crossings(frame).set_index(MEMBER)["restricted"]
    rows = []
    for key, cell in by_cell(wide.reset_index().melt(MEMBER, var_name="metric"), ["metric"]):
        greatest = frame["update"].max() if key["metric"] == RMST else 1 if key["metric"].endswith("acc") else np.inf
        rows.append(key | mean_interval(cell["value"], least=0, greatest=greatest)._asdict())
    return pd.DataFrame(rows)


def paired_differences(members: pd.DataFrame, reference: str = "baseline", same_cell: bool = True) -> pd.DataFrame:
    """Each arm's RMST less the reference arm's, paired by seed, in updates; that of the same cell, or of the only one.

    Columns: operation, schedule, cell, n (common seeds), difference, low, high, percent (of the reference's RMST),
    verdict: sooner or later where the interval excludes 0, otherwise cannot tell. No rows without the reference arm.
    """
    rows = []
    for key, cell in by_cell(members[members["schedule"] != reference]):
        at = key["cell"] if same_cell else None
        c = paired_contrast(members, key["schedule"], reference, key["operation"], cell=at)
        horizon = cell["horizon"].max()  # no two restricted times are further apart
        low, high = np.clip([c.low, c.high], -horizon, horizon)
        if c.n:
            verdict = "sooner" if high < 0 else "later" if low > 0 else "cannot tell"
            rows.append(key | c._asdict() | {"low": low, "high": high, "verdict": verdict})
    return pd.DataFrame(rows, columns=[*GROUP, "n", "difference", "low", "high", "percent", "verdict"])


def cell_settings(cells: pd.DataFrame) -> pd.DataFrame:
    """The settings that vary between the cells of the rows of `cells`, a column of numbers each; NaN: the arm's own."""
    values = pd.DataFrame([cell_values(cell) for cell in cells["cell"]], cells.index)
    return values[[name for name in values if len(values[name].unique()) > 1]]


def over_two_settings(cells: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows of `summarise` with a column for each of the settings that vary, and those settings' names.

    Where more than two vary, the first two alone tell rows of one operation and arm apart: of the others the best.
    """
    values = cell_settings(cells)
    table = cells.join(values).sort_values("rmst", kind="stable")
    return table.drop_duplicates(["operation", "schedule", *values.columns[:2]]).sort_index(), list(values)


def best_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """For each operation and arm the row of `summarise` with the smallest RMST, that of its best cell.

    Further columns: those of `cell_settings`, and tried, how many cells there were. Of equals the one with the lowest
    product of rate and decay, then the lowest rate. Without a grid these are all rows.
    """
    table = cells.join(cell_settings(cells))
    table["tried"] = cells.groupby(["operation", "schedule"])["cell"].transform("size")
    rate, decay = (table[name].fillna(1) if name in table else 1 for name in ("learning_rate", "weight_decay"))
    order = table.assign(product=rate * decay, rate=rate).sort_values(["rmst", "product", "rate"], kind="stable").index
    return table.loc[order].drop_duplicates(["operation", "schedule"]).sort_index().reset_index(drop=True)


def at_best_cells(frame: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """The rows of each arm at the cell that `best_cells` found for it, in their order."""
    return frame.merge(best[GROUP])
