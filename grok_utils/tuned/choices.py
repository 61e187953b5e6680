"""Which cell of a grid an arm groks soonest at: the choices of ANALYSIS_PLAN.md, part two, from `crossings`.

A *cell* here is a rate and a decay. Of cells that do equally well, the one with the lowest rate × decay goes first,
then the one with the lower rate.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import product

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import GROUP, MEMBER, by_operation, crossings, in_order
from grok_utils.analysis.inference import sustained_crossings
from grok_utils.tuned.costs import above_frontier, fitted
from grok_utils.tuned.fitting import RESAMPLES, seed_weights
from grok_utils.tuned.law import WARM_UP_COST

Point = tuple[float, float]  # a rate and a decay
POINT = ["learning_rate", "weight_decay"]
ARM = ["operation", "schedule", "outcome"]  # whose cells are compared
SLOWEST = 7500  # updates: the longest timescale 1 / (rate × decay) that is tried
HORIZONS = (1000, 2500, 7500)
FAILURES = 1  # of a cell's seeds, that leave it eligible
AS_SOON = 1.03  # times the smallest restricted mean: as good, and the slower rate × decay is taken
WITHIN = 1.5  # times the comparator: what stage 3 takes, and with more seeds
LEAST = 4  # arms of a kind that stage 3 takes at least


def outcomes(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `crossings` by both outcomes of the plan, touch and kept, with the cell's rate and decay.

    Further columns: outcome, final_accuracy and those of POINT.
    """
    frame = frame.astype(dict.fromkeys(GROUP, "category"))  # a million rows are grouped in half the time
    both = {"touch": crossings(frame), "kept": sustained_crossings(frame)}
    table = pd.concat([rows.assign(outcome=name) for name, rows in both.items()], ignore_index=True)
    last = frame[frame["update"] == frame["update"].max()].set_index(MEMBER)
    last = last[[*POINT, "val_accuracy"]].rename(columns={"val_accuracy": "final_accuracy"})
    return table.join(last, on=MEMBER).astype(dict.fromkeys(GROUP, "str"))


def ranked(members: pd.DataFrame) -> pd.DataFrame:
    """A row for each arm, operation, outcome and cell of `outcomes`, the soonest of each first.

    Columns: those of ARM and POINT, n, reached, median (inf where half of the members or more never get there),
    restricted and final_accuracy (means). Kept on permutation is left out: by the plan nothing is chosen by it.
    """
    members = members[(members["outcome"] == "touch") | (members["operation"] != "permutation")]
    members = members.assign(time=members["updates"].fillna(np.inf))
    cells = members.groupby([*ARM, *POINT], as_index=False).agg(
        n=("seed", "size"),
        reached=("reached", "sum"),
        median=("time", "median"),
        restricted=("restricted", "mean"),
        final_accuracy=("final_accuracy", "mean"),
    )
    return in_turn(cells, ["median"])


def in_turn(cells: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The rows of `ranked` in ascending order of the columns `by`, equals as the module says."""
    cells = cells.assign(product=cells["learning_rate"] * cells["weight_decay"])
    order = cells.sort_values([*by, "product", "learning_rate"], kind="stable", ignore_index=True)
    return order.drop(columns="product")


def best(cells: pd.DataFrame) -> pd.DataFrame:
    """The soonest cell of each arm, operation and outcome of `ranked`."""
    return cells.drop_duplicates(ARM)


def rounded(rate: float, decay: float) -> Point:
    """The cell as study files have it: four significant digits."""
    return float(f"{rate:.4g}"), float(f"{decay:.4g}")


def beyond(grid: Collection[Point], soonest: Iterable[Point]) -> set[Point]:
    """The cells that extend a grid by a step of 2, a whole row or column, where one of its `soonest` is on an edge."""
    axes = []
    for tried, at in zip(zip(*grid, strict=True), zip(*soonest, strict=True), strict=True):
        low, high = min(tried), max(tried)
        axes.append({*tried} | ({low / 2} if low in at else set()) | ({2 * high} if high in at else set()))
    return {rounded(r, d) for r, d in product(*axes) if r * d * SLOWEST > 1 - 1e-9} - set(grid)


def around(soonest: Iterable[Iterable[float]], factor: float = 2) -> set[Point]:
    """The 3 × 3 cells at factors of `factor` round each of the `soonest`."""
    steps = product((1 / factor, 1, factor), repeat=2)
    return {rounded(rate * a, decay * b) for (rate, decay), (a, b) in product(soonest, steps)}


def common(members: pd.DataFrame, operations: Collection[str]) -> dict[str, Point]:
    """The cell of each arm that serves all `operations`: the smallest mean log of restricted times by kept.

    Of the cells that were tried on each operation; times of an arm are restricted at the smallest of its horizons.
    """
    of = members[(members["outcome"] == "kept") & members["operation"].isin(operations)]
    least = of.groupby("schedule")["horizon"].transform("min")
    of = of.assign(log=np.log(of["restricted"].clip(upper=least)))
    cells = of.groupby(["schedule", *POINT], as_index=False).agg(tried=("operation", "nunique"), log=("log", "mean"))
    first = in_turn(cells[cells["tried"] == len(operations)], ["log"]).drop_duplicates("schedule")
    return {row.schedule: (row.learning_rate, row.weight_decay) for row in first.itertuples()}


def soonest_arms(cells: pd.DataFrame, arms: Collection[str], most: int = 4) -> set[tuple[str, str]]:
    """The (operation, arm) of the up to `most` soonest of `arms` by each outcome, of those that have a median."""
    found = best(cells[cells["schedule"].isin(arms) & np.isfinite(cells["median"])])
    heads = found.groupby(["operation", "outcome"]).head(most)
    return set(heads[["operation", "schedule"]].itertuples(index=False, name=None))


def candidates(cells: pd.DataFrame, most: int = 3, within: float = 1.5) -> pd.DataFrame:
    """Stage 2's cells: of each arm, operation and outcome the up to `most` within `within` × the soonest median.

    Where no cell has a median: those of most seeds that reach, then of highest mean final accuracy.
    """
    kept = []
    for _, rows in cells.groupby(ARM, sort=False):
        if np.isfinite(rows["median"].iloc[0]):
            rows = rows[rows["median"] <= within * rows["median"].iloc[0]]
        else:
            most_first = rows.assign(unreached=-rows["reached"], error=-rows["final_accuracy"])
            rows = in_turn(most_first, ["unreached", "error"])
        kept.append(rows.head(most)[[*ARM, *POINT]])
    return pd.concat(kept, ignore_index=True)


def horizons(cells: pd.DataFrame) -> dict[tuple[str, str], int]:
    """Stage 2's horizon of each (operation, arm): the smallest of HORIZONS from four times its later median on."""
    later = best(cells).groupby(["operation", "schedule"])["median"].max()
    return {key: next((h for h in HORIZONS if h >= 4 * median), HORIZONS[-1]) for key, median in later.items()}


def below_frontier(
    members: pd.DataFrame, soonest: pd.DataFrame, constants: Collection[str], arms: Collection[str], most: int = LEAST
) -> set[tuple[str, str]]:
    """The (operation, arm) of the up to `most` of `arms` that lie lowest by the frontier of the constants.

    Each arm at its soonest cell by touch; means as in `costs.frontier`; an arm outside the frontier's range has no
    height.
    """
    found = set()
    at = members.merge(soonest.loc[soonest["outcome"] == "touch", [*ARM, *POINT]])
    for operation, rows in at.groupby("operation"):
        mean = np.log(rows.groupby("schedule")[["restricted", "restricted_examples"]].mean())
        known, others = (mean[mean.index.isin(names)] for names in (constants, arms))
        y, x = (np.tile(known[column], (len(others), 1)) for column in mean)
        height = above_frontier(x, y, others["restricted_examples"].to_numpy(), others["restricted"].to_numpy())
        lowest = pd.Series(height, others.index).dropna().nsmallest(most)
        found |= {(str(operation), arm) for arm in lowest.index}
    return found


def chosen(members: pd.DataFrame) -> pd.DataFrame:
    """The cell of stage 2 that each arm, operation and outcome goes on with: a row of `ranked`, the first of each.

    Further columns: eligible, at most FAILURES of its seeds fail (where no cell is, the arm is not tuned: most seeds
    that reach go first, then the restricted mean); second_to_first, of the two smallest restricted means of its cells
    (1 where there is one cell), below which a difference between arms is unresolved.
    """
    rows = []
    for _, cells in ranked(members).groupby(ARM, sort=False):
        cells = cells.assign(failed=cells["n"] - cells["reached"])
        eligible = cells[cells["failed"] <= FAILURES]
        as_soon = eligible[eligible["restricted"] <= AS_SOON * eligible["restricted"].min()]
        found = in_turn(as_soon, []) if len(as_soon) else in_turn(cells, ["failed", "restricted"])
        first, *others = cells["restricted"].nsmallest(2)
        rows.append(found.head(1).assign(eligible=len(eligible) > 0, second_to_first=(others or [first])[0] / first))
    columns = [*ARM, *POINT, "n", "reached", "restricted", "eligible", "second_to_first"]
    return pd.concat(rows, ignore_index=True)[columns]


def chosen_again(of_arm: pd.DataFrame, column: str, resamples: int) -> np.ndarray:
    """The mean of `column` at the cell that `chosen` finds, for all seeds of one arm, operation and outcome, and for
    each bootstrap resample of them, in which the cell is chosen anew: [1 + resamples]."""
    cells = list(in_turn(of_arm.drop_duplicates(POINT), [])[POINT].itertuples(index=False, name=None))
    by_seed = of_arm.set_index([*POINT, "seed"]).sort_index()
    wide = {
        name: np.stack([by_seed.loc[cell, name].to_numpy(float) for cell in cells], axis=1)
        for name in ("restricted", "reached", column)
    }
    weights = seed_weights(np.ones((len(wide["reached"]), 1)), resamples)
    restricted, failed = weights @ wide["restricted"] / len(weights[0]), weights @ (1 - wide["reached"])
    eligible = failed <= FAILURES
    least = np.where(eligible, restricted, np.inf).min(axis=1, keepdims=True)
    tuned = (eligible & (restricted <= AS_SOON * least)).argmax(axis=1)  # the first: the cells are in turn
    not_tuned = (failed * 1e9 + restricted).argmin(axis=1)
    found = np.where(eligible.any(axis=1), tuned, not_tuned)
    return np.take_along_axis(weights @ wide[column] / len(weights[0]), found[:, None], 1)[:, 0]


def steps_by_selection(members: pd.DataFrame, sizes: Mapping[str, int], resamples: int = RESAMPLES) -> pd.DataFrame:
    """`costs.steps_and_examples` of stage 2's members alone, by touch, its cells chosen anew in each resample.

    `sizes` are those of which most seeds reach: each time is restricted at its own run's end.
    """
    rows, touch = [], members[(members["outcome"] == "touch") & members["schedule"].isin(sizes)]
    for operation, of in by_operation(touch):
        of = of.assign(log=np.log(of["restricted"] - WARM_UP_COST))
        arms = in_order(of["schedule"])
        y = np.stack([chosen_again(of[of["schedule"] == arm], "log", resamples) for arm in arms], axis=1)
        batch, seeds = np.log([sizes[arm] for arm in arms]), of["seed"].nunique()
        rows += fitted({"operation": operation}, batch, y, seeds)
    return pd.DataFrame(rows)


def compared(members: pd.DataFrame, found: pd.DataFrame, constants: Collection[str]) -> pd.DataFrame:
    """The rows of `chosen` with horizon, mean, comparator and times.

    mean is restricted at the smallest horizon of the operation and outcome, comparator the constant with the smallest
    one (eligible constants go first), and times the mean over the comparator's.
    """
    at = members.merge(found[[*ARM, *POINT]])
    least = at.groupby(["operation", "outcome"])["horizon"].transform("min")
    at = at.assign(mean=at["restricted"].clip(upper=least)).groupby(ARM, as_index=False)
    table = found.merge(at.agg(mean=("mean", "mean"), horizon=("horizon", "first")))
    best = soonest_of(table, constants)[["operation", "outcome", "schedule", "mean"]]
    table = table.merge(best.rename(columns={"schedule": "comparator", "mean": "least"}), on=["operation", "outcome"])
    return table.assign(times=table["mean"] / table.pop("least"))


def soonest_of(table: pd.DataFrame, constants: Collection[str]) -> pd.DataFrame:
    """Of these constants the comparator of each operation and outcome, a row each: eligible first, then by mean."""
    of = table[table["schedule"].isin(constants)].sort_values(["eligible", "mean"], ascending=[False, True])
    return of.drop_duplicates(["operation", "outcome"])


def taken(found: pd.DataFrame, constants: Collection[str], *kinds: Collection[str]) -> pd.DataFrame:
    """The rows of `compared` that stage 3 takes: the constants, and of each other kind, for each operation and outcome,
    those within WITHIN × the comparator, at least LEAST."""
    rows = [found[found["schedule"].isin(constants)]]
    for kind in kinds:
        of = found[found["schedule"].isin(kind)].sort_values("times", kind="stable")
        place = of.groupby(["operation", "outcome"]).cumcount()
        rows.append(of[(of["times"] <= WITHIN) | (place < LEAST)])
    return pd.concat(rows, ignore_index=True)
