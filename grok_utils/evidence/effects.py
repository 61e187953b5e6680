"""What the studies show beyond the fourteen claims: dose and response, the interactions, the horizon, stability, cost.

`members` is `Evidence.members` of one clock everywhere.
"""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import THRESHOLD, by_cell
from grok_utils.analysis.inference import equivalent, holm, paired_contrast
from grok_utils.analysis.intervals import mean_interval
from grok_utils.evidence.members import CELLS, PRECISION
from grok_utils.evidence.rules import margins
from grok_utils.pipeline.study_files import load_study
from grok_utils.schedules import BLOCK


def of_study(members: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The rows of these studies."""
    return members[members["study"].isin(names)]


def dose_response(members: pd.DataFrame, study: str = "confirm") -> pd.DataFrame:
    """RMST against dose: operation, schedule, n, reached, constant (bool), dose, rmst, low, high, curve, added_up.

    dose is the mean batch size up to a member's crossing, or to the horizon where it has none, averaged over seeds.
    curve is the constants' RMST at that dose, interpolated against the logarithm of the batch size (NaN outside their
    range). added_up is `constants_added_up`, for the arms that change.
    """
    rows = []
    for key, cell in by_cell(of_study(members, study)):
        rmst = mean_interval(cell["restricted"])
        row = key | {"n": rmst.n, "reached": int(cell["reached"].sum()), "dose": cell["mean_batch"].mean()}
        row |= {"constant": key["schedule"] == "baseline" or key["schedule"].startswith("constant-")}
        rows.append(row | {"rmst": rmst.mean, "low": rmst.low, "high": rmst.high, "curve": np.nan, "added_up": np.nan})
    table, about = pd.DataFrame(rows), load_study(study)
    for operation, at in table.groupby("operation"):
        if at["constant"].any():
            points = constant_curve(table, operation)
            table.loc[at.index, "curve"] = np.interp(np.log(at["dose"]), *points, left=np.nan, right=np.nan)
            for i, row in at[~at["constant"]].iterrows():
                table.loc[i, "added_up"] = constants_added_up(about.arm(row["schedule"]).batch_sizes(about), *points)
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
    return float(BLOCK * min(np.searchsorted(way, 1 - 1e-9) + 1, len(sizes)))


def order_added_up(rows: pd.DataFrame, dose: pd.DataFrame) -> pd.DataFrame:
    """Linear less each control of its dose, beside what `constants_added_up` predicts of it: the columns operation,
    reference, n, difference, low, high of claim 3's contrasts `rows`, and predicted; `dose` as from `dose_response`.

    Orders of the same sizes use up their dose at different paces, and a difference that follows from this alone is
    predicted; what it leaves over is an effect of order.
    """
    known = dose.loc[dose["constant"], "operation"]
    found = rows[(rows["claim"] == 3) & (rows["n"] > 0) & rows["operation"].isin(known)].reset_index(drop=True)
    table = found[["operation", "reference", "n", "difference", "low", "high"]].assign(predicted=np.nan)
    for i, row in table.iterrows():
        about, curve = load_study(f"order-{row['operation']}"), constant_curve(dose, row["operation"])
        linear, control = (
            constants_added_up(about.arm(arm).batch_sizes(about), *curve) for arm in ("linear", row["reference"])
        )
        table.loc[i, "predicted"] = linear - control
    return table


def compared() -> list[tuple[str, str, str, str]]:
    """The interactions' contrasts: study and arm, study and arm that it is compared with."""
    cells = [(study, arm, study, "baseline") for study in CELLS for arm in ("constant-128", "linear")]
    return [
        *cells,
        ("rate-sqrt-batch", "linear", "rate-one", "baseline"),
        ("rate-mirror", "baseline", "rate-one", "linear"),
    ]


def interactions(members: pd.DataFrame) -> pd.DataFrame:
    """Contrasts of times at each learning rate and weight decay, and where the rate follows the batch size.

    Columns: study, operation, learning_rate, weight_decay, arm, reference, the fields of `Contrast`, percent (of the
    reference's RMST), p_holm, corrected within the operation. Contrasts without pairs are left out.
    """
    named = members.assign(schedule=members["study"] + " " + members["schedule"])
    rows = []
    for study, arm, other, reference in compared():
        about = load_study(study)
        for operation in about.operations:
            c = paired_contrast(named, f"{study} {arm}", f"{other} {reference}", operation)
            row = {"study": study, "operation": operation, "learning_rate": about.learning_rate}
            row |= {"weight_decay": about.weight_decay, "arm": arm, "reference": reference}
            rows.append(row | c._asdict() | {"percent": 100 * c.difference / c.reference_mean})
    table = pd.DataFrame(rows)
    table["p_holm"] = table.groupby("operation")["p"].transform(holm)
    return table[table["n"] > 0].reset_index(drop=True)


def precision(members: pd.DataFrame) -> pd.DataFrame:
    """Contrasts of times at a lower precision less float32, that of `confirm`: precision, operation, arm, the fields of
    `Contrast`, percent, margin, equivalent. Contrasts without pairs are left out."""
    named = members.assign(schedule=members["study"] + " " + members["schedule"])
    margin, rows = margins(members), []
    for study in map(load_study, PRECISION):
        for operation, arm in product(study.operations, study.schedules):
            names = f"{study.name} {arm.name}", f"confirm {arm.name}"
            c = paired_contrast(named, *names, operation)
            shares = named[named["operation"] == operation].groupby("schedule")["reached"].mean().reindex(names)
            row = {"precision": study.precision, "operation": operation, "arm": arm.name} | c._asdict()
            row |= {"percent": 100 * c.difference / c.reference_mean, "margin": margin.get(operation, np.nan)}
            rows.append(row | {"equivalent": equivalent(c, margin.get(operation, np.nan), shares)})
    table = pd.DataFrame(rows)
    return table[table["n"] > 0].reset_index(drop=True)


def stability(members: pd.DataFrame, study: str = "confirm") -> pd.DataFrame:
    """After the first crossing, of the members that crossed: operation, schedule, n, crossed, share_below (of their
    later logs, the mean), unstable (members with one such log or more), ended_below (final accuracy not above 99 %),
    final_least and final_median (final accuracy)."""
    rows = []
    for key, cell in by_cell(of_study(members, study)):
        crossed = cell[cell["logs_after"] > 0]
        row = key | {"n": len(cell), "crossed": len(crossed), "share_below": crossed["share_below"].mean()}
        row |= {"unstable": int((crossed["share_below"] > 0).sum())}
        row |= {"ended_below": int((~(crossed["final_accuracy"] > np.float32(THRESHOLD))).sum())}
        rows.append(
            row | {"final_least": crossed["final_accuracy"].min(), "final_median": crossed["final_accuracy"].median()}
        )
    return pd.DataFrame(rows)


def time_of_an_update(bench: Path) -> tuple[float, float] | None:
    """Seconds that an update of a member takes, and seconds more for each of its examples; None without `bench`.

    The least-squares line through the arms of `paper` as `make bench DEVICE=cuda` timed them one by one in float32, its
    `cuda-paper.csv`. Records say nothing of it: their runs shared GPUs with others.
    """
    if not bench.exists():
        return None
    paper, timed = load_study("paper"), pd.read_csv(bench).query("precision == 'float32'").set_index("arm")
    arms = [arm for arm in paper.schedules if arm.name in timed.index]
    seconds = timed.loc[[arm.name for arm in arms], "train_s"] / timed.loc[[arm.name for arm in arms], "members"]
    slope, intercept = np.polyfit([arm.batch_sizes(paper).mean() for arm in arms], seconds / paper.updates, 1)
    return float(intercept), float(slope)


def cost(members: pd.DataFrame, bench: Path, study: str = "confirm") -> pd.DataFrame:
    """What an arm spends until 99 %, or until its end where it never gets there: operation, schedule, n, reached,
    updates, examples, seconds, each a mean over seeds; seconds by `time_of_an_update`, where it is known."""
    time, rows = time_of_an_update(bench), []
    for key, cell in by_cell(of_study(members, study)):
        row = key | {"n": len(cell), "reached": int(cell["reached"].sum()), "updates": cell["restricted"].mean()}
        row["examples"] = (cell["restricted"] * cell["mean_batch"]).mean()
        if time is not None:
            row["seconds"] = time[0] * row["updates"] + time[1] * row["examples"]
        rows.append(row)
    return pd.DataFrame(rows)
