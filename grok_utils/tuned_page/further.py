"""Shapes, controls, and the permutation task that "did not grok": tables and words."""

import pandas as pd

from grok_utils.analysis.crossings import by_operation
from grok_utils.analysis.intervals import mean_interval
from grok_utils.analysis.summaries import summarise
from grok_utils.page.prose import from_to
from grok_utils.tasks import written
from grok_utils.tuned import choices
from grok_utils.tuned.choices import ARM, POINT
from grok_utils.tuned.decisions import HORIZONS, at_chosen
from grok_utils.tuned.stages import SHAPES as COURSES
from grok_utils.tuned.stages import constant_of
from grok_utils.tuned_page.answer import USUAL
from grok_utils.tuned_page.choosing import best_cells, cell
from grok_utils.tuned_page.reading import CONTROLS, SELECT, SHAPES, TUNED, Tuned

PREFIX, REFERENCE = "controls-", "reference"
S5 = "permutation"


# --- shapes -----------------------------------------------------------------------------------------------------------


def shapes(t: Tuned, surface: pd.DataFrame) -> pd.DataFrame:
    """The best cells of the geometric courses by touch, and of the constants that are their ends, W = 0: operation,
    schedule, first, last (batch sizes), within, median; `surface` as from `choices.ranked`."""
    members = t.of(SHAPES)
    if members.empty:
        return members
    ends = {constant_of(course[end]): course[end] for course in COURSES.values() for end in ("lo", "hi")}
    courses = {name: (of["lo"], of["hi"], of["length"]) for name, of in COURSES.items()}
    courses |= {name: (size, size, 0) for name, size in ends.items()}
    best = choices.best(pd.concat([choices.ranked(members), surface], ignore_index=True))
    best = best[(best["outcome"] == "touch") & best["schedule"].isin(courses)]
    best = best[best["operation"].isin(members["operation"])]
    columns = pd.DataFrame([courses[arm] for arm in best["schedule"]], best.index, ["first", "last", "within"])
    return best[["operation", "schedule", "median"]].join(columns)


def shapes_line(t: Tuned, table: pd.DataFrame) -> str:
    """Which courses are the soonest in their first stage, and whether growing ones are sooner than shrinking ones."""
    told = [t.lacks(SHAPES)] if not t.complete(SHAPES) else []
    for operation, of in by_operation(table) if len(table) else []:
        course = of[of["within"] > 0].sort_values("median", kind="stable").iloc[0]
        median = of.set_index(["first", "last", "within"])["median"]
        pairs = [(median[a, b, w], median[b, a, w]) for a, b, w in median.index if w and a < b and (b, a, w) in median]
        sooner = [sum(up < down for up, down in pairs), sum(up > down for up, down in pairs)]
        told.append(
            f"On {written(operation)} the soonest course is `{course['schedule']}` ({course['median']:,.0f} updates). "
            f"Of {len(pairs)} pairs of a course and its reverse the growing one is sooner in {sooner[0]}, the "
            f"shrinking one in {sooner[1]}."
        )
    return " ".join(told)


# --- controls ---------------------------------------------------------------------------------------------------------


def controls(t: Tuned) -> pd.DataFrame:
    """The best cell by touch of each arm in each study `controls-*`, six seeds by which it was chosen.

    control, operation, schedule, tried, cell, edge, n, reached, updates (restricted mean) with low and high, to_512
    (over that of 512 in the same control), and to_reference (over the same arm's in the control `reference`).
    """
    rows, members = [], t.of(CONTROLS)
    for study in members["study"].unique():
        of = members[members["study"] == study]
        for best in best_cells(choices.ranked(of), of).query("outcome == 'touch'").itertuples():
            at = pd.DataFrame([{name: getattr(best, name) for name in (*ARM, *POINT)}])
            found = mean_interval(of.merge(at)["restricted"])
            row = {"control": study.removeprefix(PREFIX), "operation": best.operation, "schedule": best.schedule}
            row |= {"tried": best.tried, "cell": cell(best), "edge": best.edge}
            row |= {"n": found.n, "reached": int(best.reached), "updates": found.mean}
            rows.append(row | {"low": found.low, "high": found.high})
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    usual = table[table["schedule"] == USUAL].set_index(["control", "operation"])["updates"]
    reference = table[table["control"] == REFERENCE].set_index(["operation", "schedule"])["updates"]
    table["to_512"] = table["updates"] / table.join(usual.rename("other"), on=["control", "operation"])["other"]
    other = table.join(reference.rename("other"), on=["operation", "schedule"])["other"]
    return table.assign(to_reference=table["updates"] / other)


def controls_line(t: Tuned, table: pd.DataFrame) -> str:
    """How the order of the constants fares under other settings."""
    told = [t.lacks(CONTROLS)] if not t.complete(CONTROLS) else []
    if len(table):
        others = table[table["schedule"] != USUAL].dropna(subset=["to_512"])
        there = others[others["control"] == REFERENCE].set_index(["operation", "schedule"])["to_512"]
        rows = others[others["control"] != REFERENCE].join(there.rename("there"), on=["operation", "schedule"])
        rows = rows.dropna(subset=["there"])
        same = int(((rows["to_512"] < 1) == (rows["there"] < 1)).sum())
        told.append(
            f"In {same} of {len(rows)} arms, operations and controls an arm is on the same side of 512 as in the "
            f"reference. There the ratios to 512 are {from_to(there, '{:.2f}')}, in the controls "
            f"{from_to(rows['to_512'], '{:.2f}')}."
            if len(rows)
            else "There is nothing yet to compare with the reference."
        )
    return " ".join(told)


# --- permutation ------------------------------------------------------------------------------------------------------


def permutation(t: Tuned, members: pd.DataFrame, dose: pd.DataFrame) -> pd.DataFrame:
    """Permutation, tuned: schedule, n, reached, share with low and high, updates (mean, by `horizon`), and there, how
    many seeds reached by 7,500 updates at the original's rate and decay. `members` as from `answer.tuned_members`."""
    if t.complete(SELECT, TUNED):
        members = at_chosen(t.horizons[HORIZONS[-1]], t.chosen).assign(horizon=HORIZONS[-1])
    found = members[(members["operation"] == S5) & (members["outcome"] == "touch")]
    if found.empty:
        return found
    table = summarise(found).rename(columns={"rmst": "updates", "share_low": "low", "share_high": "high"})
    there = dose[dose["operation"] == S5].set_index("schedule")
    told = there["reached"].astype(str) + " of " + there["n"].astype(str)
    table = table.join(told.rename("there"), on="schedule").fillna({"there": "–"})
    columns = ["schedule", "n", "reached", "share", "low", "high", "updates", "horizon", "there"]
    return table[columns].sort_values("updates", kind="stable", ignore_index=True)


def permutation_line(t: Tuned, table: pd.DataFrame) -> str:
    """Whether permutation groks once rate and decay are tuned."""
    told = [t.waits(SELECT, TUNED)]
    if len(table):
        source = "Stage 3" if not told[0] else "Stage 1 alone, whose cells were chosen by these seeds"
        whole = table[table["reached"] == table["n"]]
        best = table.iloc[0]
        told.append(
            f"{source}: {written(S5)} groks in every seed of {len(whole)} of {len(table)} arms. The soonest, "
            f"`{best['schedule']}`, touches 99 % after {best['updates']:,.0f} updates ({best['reached']} of "
            f"{best['n']} seeds)."
        )
    return " ".join(filter(None, told))
