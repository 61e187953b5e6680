"""What the studies show beyond the fourteen claims: dose and response, the interactions, the horizon, stability, cost.

`members` is `Evidence.members` of one clock everywhere.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import GROUP, THRESHOLD, by_cell, by_operation
from grok_utils.analysis.inference import holm, paired_contrast
from grok_utils.analysis.intervals import mean_interval
from grok_utils.evidence.members import PRECISION, RATES, STUDIES, of_study
from grok_utils.evidence.rules import contrast, margins
from grok_utils.pipeline.study_files import load_study
from grok_utils.schedules import BLOCK
from grok_utils.studies import Arm, Cell, Follows, Study

COSTS = ("updates", "examples", "seconds")


def batch_sizes(study: Study, arm: str) -> np.ndarray:
    """The batch size of each block of an arm that draws its batches: int64 [updates / 10]."""
    of = study.arm(arm)
    return of.course("batch_size", study.updates, of.settings.operations[0], of.cells[0])


def dose_response(members: pd.DataFrame) -> pd.DataFrame:
    """RMST against dose: operation, schedule, n, reached, constant (bool), dose, rmst, low, high, curve, added_up.

    dose is the mean batch size up to a member's crossing, or to the horizon where it has none, averaged over seeds.
    curve is the constants' RMST at that dose, interpolated against the logarithm of the batch size (NaN outside their
    range). added_up is `constants_added_up`, for the arms that change.
    """
    study, rows = load_study(STUDIES[0]), []
    for key, cell in by_cell(of_study(members, study.name)):
        rmst = mean_interval(cell["restricted"])
        dose = (cell["restricted_examples"] / cell["restricted"]).mean()
        row = key | {"n": rmst.n, "reached": int(cell["reached"].sum()), "dose": dose}
        row |= {"constant": isinstance(study.arm(key["schedule"]).settings.batch_size, int)}
        rows.append(row | {"rmst": rmst.mean, "low": rmst.low, "high": rmst.high, "curve": np.nan, "added_up": np.nan})
    table = pd.DataFrame(rows)
    for i, row in table.iterrows():
        points = constant_curve(table, row["operation"])
        table.loc[i, "curve"] = np.interp(np.log(row["dose"]), *points, left=np.nan, right=np.nan)
        if not row["constant"]:
            table.loc[i, "added_up"] = constants_added_up(batch_sizes(study, row["schedule"]), *points)
    return table


def constant_curve(dose: pd.DataFrame, operation: str) -> tuple[pd.Series, pd.Series]:
    """The constants' logarithms of batch size, ascending, and their RMST, on one operation."""
    known = dose[dose["constant"] & (dose["operation"] == operation)].sort_values("dose")
    return np.log(known["dose"]), known["rmst"]


def constants_added_up(sizes: np.ndarray, log_doses: pd.Series, rmst: pd.Series) -> float:
    """The update at which an arm of these batch sizes would cross if growth, order and spread did nothing of their own.

    An update at batch size B then takes 1 / T(B) of the way, T the constants' RMST; the arm crosses where these add up
    to 1, or never: at the horizon. The mean batch size alone does not say as much: 1 / T is no straight line.
    """
    way = (BLOCK / np.interp(np.log(sizes), log_doses, rmst)).cumsum()
    return float(BLOCK * min(int(np.searchsorted(way, 1 - 1e-9)) + 1, len(sizes)))


def order_added_up(rows: pd.DataFrame, dose: pd.DataFrame) -> pd.DataFrame:
    """Linear less each control of its dose, beside what `constants_added_up` predicts of it: the columns operation,
    reference, n, difference, low, high of claim 3's contrasts `rows`, and predicted; `dose` as from `dose_response`.

    Orders of the same sizes use up their dose at different paces, and a difference that follows from this alone is
    predicted; what it leaves over is an effect of order.
    """
    found, predicted = rows[rows["claim"] == 3].reset_index(drop=True), []
    for row in found.itertuples():
        study, curve = load_study(row.study), constant_curve(dose, row.operation)
        linear, control = (constants_added_up(batch_sizes(study, arm), *curve) for arm in (row.arm, row.reference))
        predicted.append(linear - control)
    return found[["operation", "reference", "n", "difference", "low", "high"]].assign(predicted=predicted)


def compared(study: Study) -> Iterator[tuple[Arm, Arm, Cell]]:
    """The contrasts of a study of rates: an arm, the one that it is compared with, and the cell of the latter.

    In each cell, arms are compared with the study's reference. An arm whose rate follows a batch size is compared with
    the arm of that batch size, or, where it is its own, with that at which it has the usual rate.
    """
    reference = study.arm(study.reference)
    for cell in reference.cells:
        yield from ((arm, reference, cell) for arm in study.arms if arm != reference and cell in arm.cells)
    for arm in study.arms:
        if isinstance(rate := arm.settings.learning_rate, Follows):
            other = next(a for a in study.arms if a.settings.batch_size == (rate.follows or rate.at))
            usual = {"learning_rate": rate.value, "weight_decay": arm.settings.weight_decay}
            yield arm, other, next(cell for cell in other.cells if dict(cell.values) == usual)


def interactions(members: pd.DataFrame) -> pd.DataFrame:
    """Contrasts of times at each learning rate and weight decay, and where the rate follows the batch size.

    Columns: operation, learning_rate, weight_decay, follows (whether the arm's rate does, and the cell is that of its
    reference), arm, reference, those of `inference.Contrast`, p_holm, corrected within the operation.
    """
    study, rows = load_study(RATES), []
    for arm, reference, cell in compared(study):
        follows = isinstance(arm.settings.learning_rate, Follows)  # such an arm has no cell
        pair = of_study(members, study.name).query("cell in @names", local_dict={"names": [cell.name, ""]})
        for operation in arm.settings.operations:
            row = {"operation": operation, **dict(cell.values), "follows": follows}
            row |= {"arm": arm.name, "reference": reference.name}
            rows.append(row | paired_contrast(pair, arm.name, reference.name, operation)._asdict())
    return pd.DataFrame(rows).assign(p_holm=lambda table: table.groupby("operation")["p"].transform(holm))


def precision(members: pd.DataFrame) -> pd.DataFrame:
    """Contrasts of times at a lower precision less float32, that of the arm of `confirm` that is otherwise the same:
    precision, operation, arm (of `confirm`) and those of `rules.contrast`."""
    study, usual, margin, rows = load_study(PRECISION), load_study(STUDIES[0]), margins(members), []
    both = of_study(members, study.name, usual.name)
    for arm, other in product(study.arms, usual.arms):
        at, like = arm.settings, other.settings
        if replace(at, precision=like.precision, operations=like.operations) == like:
            for operation in at.operations:
                found = contrast(both, arm.name, other.name, operation, margin[operation])
                rows.append({"precision": at.precision, "operation": operation, "arm": other.name} | found)
    return pd.DataFrame(rows)


def stability(members: pd.DataFrame) -> pd.DataFrame:
    """After the first crossing, of the members that crossed: operation, schedule, n, crossed, share_below (of their
    later logs, the mean), unstable (members with one such log or more), ended_below (final accuracy not above 99 %),
    final_least and final_median (final accuracy)."""
    rows = []
    for key, cell in by_cell(of_study(members, STUDIES[0])):
        crossed = cell[cell["logs_after"] > 0]
        row = key | {"n": len(cell), "crossed": len(crossed), "share_below": crossed["share_below"].mean()}
        final, unstable = crossed["final_accuracy"], (crossed["share_below"] > 0).sum()
        row |= {"unstable": int(unstable), "ended_below": int((~(final > np.float32(THRESHOLD))).sum())}
        rows.append(row | {"final_least": final.min(), "final_median": final.median()})
    return pd.DataFrame(rows)


def with_seconds(table: pd.DataFrame, bench: Path) -> pd.DataFrame:
    """The table of a member's updates and examples with the seconds that they take; as it is without `bench`.

    By the least-squares line through the arms of `paper` as `make bench DEVICE=cuda` timed them one by one in float32,
    its `cuda-paper.csv`. Records say nothing of it: their runs shared GPUs with others.
    """
    if not bench.exists():
        return table
    paper, timed = load_study("paper"), pd.read_csv(bench).query("precision == 'float32'").set_index("arm")
    arms = [arm.name for arm in paper.arms if arm.name in timed.index]
    seconds = timed.loc[arms, "train_s"] / timed.loc[arms, "members"]
    slope, intercept = np.polyfit([batch_sizes(paper, arm).mean() for arm in arms], seconds / paper.updates, 1)
    return table.assign(seconds=intercept * table["updates"] + slope * table["examples"])


def cost(members: pd.DataFrame, bench: Path) -> pd.DataFrame:
    """What an arm spends until 99 %, or until its end where it never gets there: operation, schedule, n, reached,
    updates, examples, seconds, each a mean over seeds; seconds as in `with_seconds`."""
    cells = of_study(members, STUDIES[0]).groupby(GROUP, sort=False, as_index=False)
    means = {"updates": ("restricted", "mean"), "examples": ("restricted_examples", "mean")}
    return with_seconds(cells.agg(n=("seed", "size"), reached=("reached", "sum"), **means), bench)


def cheapest(table: pd.DataFrame, beside: tuple[str, ...]) -> pd.DataFrame:
    """The rows of the arms that spend least of any of COSTS, and of those `beside` them, an operation at a time, of the
    arms of which every seed reached 99 %."""
    kept = []
    for _, rows in by_operation(table[table["reached"] == table["n"]]):
        arms = rows.set_index("schedule")
        named = [*arms[[cost for cost in COSTS if cost in arms]].idxmin(), *(a for a in beside if a in arms.index)]
        kept.append(arms.loc[list(dict.fromkeys(named))].reset_index())
    return pd.concat(kept, ignore_index=True)[list(table)] if kept else table.head(0)
