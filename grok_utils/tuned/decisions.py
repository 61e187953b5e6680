"""What stage 3 decides: the contrasts of the arms, and whether a schedule beats the constants (ANALYSIS_PLAN.md,
part two, "Outcomes and costs", "Stage 3" and "Decisions").

Read from top to bottom: `members` come from `at_horizons`, one table for each of HORIZONS, of all studies of stage 3;
`chosen` is stage 2's table, as `choices.compared` gives; `over_horizons` joins what each horizon decides.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any

import pandas as pd

from grok_utils.analysis import equivalence
from grok_utils.analysis.crossings import MEMBER, in_order
from grok_utils.analysis.inference import ALPHA, after_touch, holm, paired_contrast, sign_flip_p
from grok_utils.schedules import BLOCK
from grok_utils.studies import Scheduled, Study
from grok_utils.tuned import choices, costs
from grok_utils.tuned.choices import ARM, POINT
from grok_utils.tuned.stages import HELD_OUT, ITS_CHOICE, SHAPES, constant_of, kinds

HORIZON, HORIZONS = 2000, (1000, 2000, 7500)  # updates: at which contrasts restrict, and are repeated
VERBS = {"touch": "touches 99 %", "kept": "keeps 99 %"}
OUTCOMES = tuple(VERBS)
EQUIVALENT, SOONER, LATER, UNRESOLVED = "equivalent", "sooner", "later", "unresolved"
CANNOT_TELL, DEPENDS = "cannot tell", "depends on the horizon"
BEATS, DOES_NOT, NO_VERDICT = "beats the constants", "does not", "no verdict"
WAYS = {  # in which a schedule beats the constants
    "sooner": "sooner than every constant",
    "frontier": "below the frontier",
    "domination": "dominating its comparator",
}
KEY = ["outcome", "operation", "schedule"]
OF_PAIR: Callable[[Mapping[str, str]], tuple[str, str, str]] = itemgetter("schedule", "reference", "operation")

# --- members -------------------------------------------------------------------------------------------------------


def at_horizons(study: Study, frame: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """The rows of `choices.outcomes` of a study's records, restricted at each of HORIZONS ("Costs", "Stage 3").

    A member that does not reach by then counts as the horizon, and as the examples that its arm's course has by then,
    also where its run ends sooner. final_accuracy is that of the last log by then. The column horizon stays the run's.
    """
    every, end, found = choices.outcomes(frame), int(frame["update"].max()), {}
    seen = {
        (arm.name, cell.name, operation): BLOCK * course.cumsum()
        for arm in study.arms
        for (operation, cell), course in arm.courses("batch_size", max(end, *HORIZONS)).items()
    }
    for horizon in HORIZONS:
        members = every.assign(reached=every["updates"] <= horizon)
        members[["updates", "examples_seen"]] = members[["updates", "examples_seen"]].where(members["reached"])
        members["restricted"] = members["updates"].fillna(horizon)
        keys = members[MEMBER[:3]].itertuples(index=False, name=None)
        by_then = pd.Series([float(seen[key][horizon // BLOCK - 1]) for key in keys], members.index)
        members["restricted_examples"] = members["examples_seen"].fillna(by_then)
        last = frame[frame["update"] == min(horizon, end)].set_index(MEMBER)["val_accuracy"].rename("final_accuracy")
        found[horizon] = members.drop(columns="final_accuracy").join(last, on=MEMBER)
    return found


def everywhere(chosen: pd.DataFrame) -> pd.DataFrame:
    """`chosen` with what follows from it: x − y takes x / y's cells and comparator ("x − y is held out"), and kept on
    permutation, which is reported and not selected for, touch's."""
    held_out = chosen[chosen["operation"] == ITS_CHOICE].assign(operation=HELD_OUT)
    reported = chosen[(chosen["operation"] == "permutation") & (chosen["outcome"] == "touch")].assign(outcome="kept")
    return pd.concat([chosen, held_out, reported]).drop_duplicates(ARM)


def at_chosen(members: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """The members, by each outcome, at the cell chosen by it, with its comparator and second_to_first.

    ("Each arm at its own cell".) An arm that stage 3 took by one outcome has both where its two cells are one.
    """
    return members.merge(everywhere(chosen)[[*ARM, *POINT, "comparator", "second_to_first"]], on=[*ARM, *POINT])


def in_families(table: pd.DataFrame) -> pd.Series:
    """Which rows a family may hold: "Kept on permutation is in none"."""
    return (table["operation"] != "permutation") | (table["outcome"] == "touch")


# --- contrasts -----------------------------------------------------------------------------------------------------


def comparisons(at: pd.DataFrame) -> Iterator[dict[str, str]]:
    """The contrasts of the plan's three families: constants − 512, dynamic arms − comparator, shapes − comparator."""
    constants, dynamic = kinds(at)
    found = at.drop_duplicates(KEY)
    for family, arms in {"constants": constants, "dynamic arms": dynamic, "shapes": SHAPES.keys()}.items():
        for row in found[found["schedule"].isin(arms)].to_dict("records"):
            reference = constant_of(512) if family == "constants" else row["comparator"]
            if row["schedule"] != reference:
                yield {"family": family} | {name: row[name] for name in KEY} | {"reference": reference}


def contrast(at: pd.DataFrame, arm: str, reference: str, operation: str) -> dict[str, Any]:
    """One contrast of `at_chosen`'s rows of one outcome, arm less reference over common seeds.

    n, mean and reference_mean (restricted), difference with low, high (95 %) and p (sign-flip); ratio (geometric, of
    those that reach in both), share_difference, each with its 90 % interval; equivalent; resolution, the larger of the
    two arms' second_to_first.
    """
    c = paired_contrast(at, arm, reference, operation)
    ratio = equivalence.ratio(at, arm, reference, operation)
    shares = equivalence.shares(at, arm, reference, operation)
    two = at[(at["operation"] == operation) & at["schedule"].isin([arm, reference])]
    row = {"n": c.n, "mean": c.reference_mean + c.difference, "reference_mean": c.reference_mean}
    row |= {name: getattr(c, name) for name in ("difference", "low", "high", "p")}
    row |= {"ratio_n": ratio.n, "ratio": ratio.estimate, "ratio_low": ratio.low, "ratio_high": ratio.high}
    row |= {"share_difference": shares.estimate, "share_low": shares.low, "share_high": shares.high}
    same = bool(equivalence.equivalent(ratio, shares))
    return row | {"equivalent": same, "resolution": two["second_to_first"].max()}


def verdict(row: Mapping[str, Any]) -> str:
    """Of a `contrast` with its adjusted_p: "Equivalent", which is looked at first, "Sooner", "later", "Cannot tell",
    and "unresolved" where the means differ by less than the resolution ("Resolution")."""
    if row["equivalent"]:
        return EQUIVALENT
    if not row["adjusted_p"] < ALPHA:
        return CANNOT_TELL
    if max(row["mean"] / row["reference_mean"], row["reference_mean"] / row["mean"]) < row["resolution"]:
        return UNRESOLVED
    return SOONER if row["difference"] < 0 else LATER


def contrasts(members: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """A row for each of `comparisons`: family, outcome, operation, schedule, reference, those of `contrast`,
    adjusted_p and verdict; Holm over all operations and one outcome ("Decisions").

    Kept on permutation is reported, without adjusted_p and verdict.
    """
    at = at_chosen(members, chosen)
    of = dict(list(at.groupby("outcome")))
    table = pd.DataFrame([key | contrast(of[key["outcome"]], *OF_PAIR(key)) for key in comparisons(at)])
    tested = in_families(table)
    table["adjusted_p"] = table[tested].groupby(["family", "outcome"])["p"].transform(holm)
    table["verdict"] = [verdict(row) for row in table.to_dict("records")]
    table.loc[~tested, "verdict"] = ""
    return table


def over_horizons(tables: Mapping[int, pd.DataFrame], key: list[str]) -> pd.DataFrame:
    """The table at HORIZON with each one's verdict_<horizon>; "a verdict that changes reads 'depends on the horizon'".

    `key` names the columns that tell its rows apart.
    """
    table = tables[HORIZON]
    for horizon, other in tables.items():
        table = table.merge(other[[*key, "verdict"]].rename(columns={"verdict": f"verdict_{horizon}"}), on=key)
    changes = table[[f"verdict_{horizon}" for horizon in tables]].ne(table["verdict"], axis=0).any(axis=1)
    return table.assign(verdict=table["verdict"].mask(changes, DEPENDS))


def grokking(touch: str, kept: str) -> str:
    """Both outcomes' verdicts in words: "'Groks sooner' needs both. If only touch differs we write 'touches 99 %
    sooner'; if only kept does, 'keeps 99 % sooner'". An outcome without verdict is empty."""
    if touch == kept:
        return f"groks {touch}" if touch in (SOONER, LATER) else touch
    both = {"touch": touch, "kept": kept}
    said = [f"{VERBS[outcome]} {found}" for outcome, found in both.items() if found in (SOONER, LATER)]
    return ", ".join(said or [f"{outcome}: {found}" for outcome, found in both.items() if found])


def groks(table: pd.DataFrame) -> pd.DataFrame:
    """What `contrasts` says of each schedule by both outcomes: family, operation, schedule, touch, kept, said."""
    both = by_both(table, ["family", "operation", "schedule"])
    return both.assign(said=list(map(grokking, both["touch"], both["kept"])))


def by_both(table: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """The verdicts of both outcomes side by side: columns `key`, touch and kept (empty where there is none)."""
    both = table.pivot_table("verdict", key, "outcome", aggfunc="first", fill_value="")
    return both.reindex(columns=[*OUTCOMES], fill_value="").rename_axis(columns=None).reset_index()


# --- does a schedule beat the constants? -----------------------------------------------------------------------------


def rivals(studies: Iterable[Study], own_range: bool = False) -> dict[str, frozenset[str]]:
    """The constants that each schedule is held against: all, or those within its own range of batch sizes."""
    courses = {arm.name: arm.settings.batch_size for study in studies for arm in study.arms}
    found = {}
    for name, of in courses.items():
        if isinstance(of, Scheduled):
            low, high = (min(of.lo, of.hi), max(of.lo, of.hi)) if own_range else (0, math.inf)
            found[name] = frozenset(c for c, b in courses.items() if isinstance(b, int) and low <= b <= high)
    return found


def sooner_tests(at: pd.DataFrame, against: Mapping[str, Collection[str]]) -> pd.DataFrame:
    """Each schedule less each constant that it is held against, by restricted means over common seeds: operation,
    schedule, reference, n, difference, p, adjusted_p (Holm, over the rows), passes."""
    rows = []
    for operation, arms in at.groupby("operation"):
        wide = costs.by_seed(arms, "restricted")
        for arm in in_order(set(wide) & set(against)):
            for constant in in_order(set(wide) & set(against[arm])):
                d = (wide[arm] - wide[constant]).dropna()
                row = {"operation": operation, "schedule": arm, "reference": constant, "n": len(d)}
                rows.append(row | {"difference": d.mean(), "p": sign_flip_p(d)})
    table = pd.DataFrame(rows)
    return costs.judged(table.assign(less=table["difference"] < 0))


def beats_constants(
    members: pd.DataFrame,
    chosen: pd.DataFrame,
    against: Mapping[str, frozenset[str]],
    resamples: int = costs.FRONTIER_RESAMPLES,
) -> pd.DataFrame:
    """The tests of the three ways in which a schedule may beat the constants `against` it, from `rivals`.

    Columns: way, outcome, operation, schedule, adjusted_p, passes, and those of `sooner_tests`, `costs.frontier` and
    `costs.domination`. "Each way has a Holm family for each outcome, over schedules and operations".
    """
    at, chosen = at_chosen(members, chosen), everywhere(chosen)
    at = at[in_families(at)]
    tables = []
    for outcome, rows in at.groupby("outcome", sort=False):
        present = {arm: against[arm] for arm in in_order(set(rows["schedule"]) & set(against))}
        below, dominates = [], []
        for constants in dict.fromkeys(present.values()):  # schedules with the same rivals share a frontier
            schedules = [arm for arm, of in present.items() if of == constants]
            arms = rows[rows["schedule"].isin([*schedules, *constants])]
            comparators = choices.soonest_of(chosen[chosen["outcome"] == outcome], constants).set_index("operation")
            below.append(costs.frontier(arms, constants, resamples))
            dominates.append(costs.domination(arms, comparators["schedule"].to_dict(), schedules))
        found = {
            "sooner": sooner_tests(rows, present),
            "frontier": costs.judged(pd.concat(below, ignore_index=True)),
            "domination": costs.judged(pd.concat(dominates, ignore_index=True)),
        }
        tables += [table.assign(way=way, outcome=outcome) for way, table in found.items()]
    return pd.concat(tables, ignore_index=True)


def ways(tests: pd.DataFrame) -> pd.DataFrame:
    """A verdict for each way, outcome, operation and schedule of `beats_constants`: every test of *sooner* passes, one
    of the two of *dominates*; outside the frontier's range there is no verdict."""
    rows = []
    for key, of in tests.groupby(["way", *KEY], sort=False):
        passes = of["passes"].all() if key[0] == "sooner" else of["passes"].any()
        outside = key[0] == "frontier" and of["distance"].isna().all()
        found = NO_VERDICT if outside else BEATS if passes else DOES_NOT
        rows.append(dict(zip(["way", *KEY], key, strict=True)) | {"verdict": found})
    return pd.DataFrame(rows)


def beaten(found: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """In words, where a schedule beats the constants by one outcome or both: operation, schedule, way, said.

    `found` is of `ways`, `compared` of `contrasts`. "By one outcome alone it is worded as above", and where the
    contrast with the comparator is equivalent or unresolved, "both are said".
    """
    beside = compared.set_index(KEY)["verdict"]
    rows = []
    for row in by_both(found, ["operation", "schedule", "way"]).to_dict("records"):
        by = [outcome for outcome in OUTCOMES if row[outcome] == BEATS]
        how = WAYS[row["way"]]
        said = [f"{BEATS}: {how}"] if len(by) == 2 else [f"{VERBS[outcome]} {how}" for outcome in by]
        for outcome in by:
            if (also := beside[outcome, row["operation"], row["schedule"]]) in (EQUIVALENT, UNRESOLVED):
                said.append(f"by {outcome} its contrast with the comparator is {also}")
        rows.append({name: row[name] for name in ("operation", "schedule", "way")} | {"said": "; ".join(said)})
    return pd.DataFrame(rows)


# --- what lasts ---------------------------------------------------------------------------------------------------


def after_touch_at(frame: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """`inference.after_touch` of one study, by each outcome at the cells chosen by it: with a column outcome.

    ("The share of members above 99 % 500 updates after the touch, of those that touch by the horizon less 500": the
    run's own.)
    """
    cells = everywhere(chosen)
    cells = cells.merge(frame.drop_duplicates(["operation", "schedule", "cell"])[["cell", *ARM[:2], *POINT]])
    of = [(o, frame.merge(cells.loc[cells["outcome"] == o, [*ARM[:2], "cell"]])) for o in OUTCOMES]
    return pd.concat([after_touch(rows).assign(outcome=o) for o, rows in of if len(rows)], ignore_index=True)
