"""The tuned answer: stage 3's decisions, the sentences that carry them, and the points of the one figure.

`dose` is the table dose-response-table.csv of the page of the claims: the original's rate and decay, study `confirm`.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import by_operation
from grok_utils.analysis.intervals import mean_interval
from grok_utils.page.prose import from_to, interval, listed, sample_sizes
from grok_utils.pipeline.study_files import load_study
from grok_utils.studies import DEFAULTS, Arm, Scheduled
from grok_utils.tasks import written
from grok_utils.tuned import choices, decisions
from grok_utils.tuned.choices import ARM, POINT
from grok_utils.tuned.decisions import BEATS, HORIZON, KEY, SOONER
from grok_utils.tuned.stages import constant_of
from grok_utils.tuned_page.reading import SELECT, SURFACE, TUNED, Tuned

FIRST_STUDY = "confirm"  # of part one: the original's rate and decay
SETTINGS = ("original", "tuned")
KINDS = ("constant", "growing", "cyclic", "shrinking", "all pairs")  # the last is the limit of large batches
BESIDE = "its contrast with the comparator is"  # words of `decisions.beaten`
FEW = 4  # things that are told by name
CONVEX = (
    "The frontier is straight between constants that are a factor of 2 apart, and there lies up to 6 % above a "
    "hyperbola through them: an arm may lie below it by that curvature alone."
)
USUAL = constant_of(DEFAULTS["batch_size"])


class Decided(NamedTuple):
    """What stage 3 decides: the tables of `decisions`, over the horizons, and in words.

    contrasts: of `decisions.contrasts`; groks: both outcomes' verdicts in words; tests: of `beats_constants`, at
    HORIZON; beaten: where a schedule beats the constants, in words, and own_range: those within its own range.
    """

    contrasts: pd.DataFrame
    groks: pd.DataFrame
    tests: pd.DataFrame
    beaten: pd.DataFrame
    own_range: pd.DataFrame


def decide(t: Tuned) -> Decided | None:
    """What stage 3 decides; None until it and stage 2 are complete."""
    if not t.complete(SELECT, TUNED):
        return None
    at_each = {h: decisions.contrasts(members, t.chosen) for h, members in t.horizons.items()}
    compared = decisions.over_horizons(at_each, ["family", *KEY])
    studies = [study for name, study in t.loaded.items() if name.startswith(f"{TUNED}-")]
    tests, beaten = [], []
    for own_range in (False, True):
        against = decisions.rivals(studies, own_range)
        of = {h: decisions.beats_constants(members, t.chosen, against) for h, members in t.horizons.items()}
        found = decisions.over_horizons({h: decisions.ways(table) for h, table in of.items()}, ["way", *KEY])
        tests.append(of[HORIZON])
        beaten.append(decisions.beaten(found, compared))
    return Decided(compared, decisions.groks(compared), tests[0], *beaten)


# --- what is drawn ----------------------------------------------------------------------------------------------------


def kind_of(arm: Arm) -> str:
    """Of KINDS, by how the arm's batch size goes."""
    batch_size = arm.settings.batch_size
    if not isinstance(batch_size, Scheduled):
        return KINDS[-1] if batch_size == "all" else "constant"
    if batch_size.schedule == "cyclic":
        return "cyclic"
    return "growing" if batch_size.lo < batch_size.hi else "shrinking"


def tuned_members(t: Tuned) -> pd.DataFrame:
    """The members at the cell chosen for each arm, by each outcome: those of `Tuned.source`."""
    if t.complete(SELECT):
        members = t.horizons[HORIZON] if t.complete(TUNED) else t.of(SELECT)
        return decisions.at_chosen(members, t.chosen)
    members = t.of(SURFACE)
    return members.merge(choices.best(choices.ranked(members))[[*ARM, *POINT]])


def points(t: Tuned, dose: pd.DataFrame) -> pd.DataFrame:
    """Updates to 99 % against batch size: setting (of SETTINGS), operation, schedule, kind, n, reached, batch (the mean
    up to the touch), rmst, low, high, and, tuned, the mean of examples. Those before stage 3 have no interval:
    their cells were chosen by the same seeds."""
    arms = {arm.name: arm for arm in load_study(FIRST_STUDY).arms} | t.arms
    first = dose.rename(columns={"dose": "batch"}).assign(setting=SETTINGS[0])
    rows, of_stage_3 = [], t.complete(SELECT, TUNED)
    for (operation, arm, outcome), of in tuned_members(t).groupby(ARM, sort=False):
        if outcome == "touch":
            found = mean_interval(of["restricted"], least=0)
            batch = (of["restricted_examples"] / of["restricted"]).mean()
            row = {"operation": operation, "schedule": arm, "n": found.n, "reached": int(of["reached"].sum())}
            row |= {"batch": batch, "examples": of["restricted_examples"].mean()}
            row |= {"rmst": found.mean, "low": np.nan, "high": np.nan}
            rows.append(row | ({"low": found.low, "high": found.high} if of_stage_3 else {}))
    table = pd.concat([first, pd.DataFrame(rows).assign(setting=SETTINGS[1])], ignore_index=True)
    table["kind"] = [kind_of(arms[name]) for name in table["schedule"]]
    numbers = ["n", "reached", "batch", "rmst", "low", "high", "examples"]
    return table.reindex(columns=["setting", "operation", "schedule", "kind", *numbers])


def soonest(table: pd.DataFrame) -> pd.DataFrame:
    """The soonest constant and the soonest schedule of each operation and setting of `points`, told by `constant`."""
    order = table[table["kind"] != KINDS[-1]].sort_values("rmst", kind="stable")
    order = order.assign(constant=order["kind"] == "constant")
    found = order.drop_duplicates(["setting", "operation", "constant"])
    return pd.concat(of.sort_values(["setting", "constant"], ascending=[True, False]) for _, of in by_operation(found))


def answer_table(table: pd.DataFrame) -> pd.DataFrame:
    """The answer in numbers from `points`, a row an operation and setting: 512, soonest constant, soonest schedule."""
    best, usual = soonest(table), table[table["schedule"] == USUAL]
    best = best.assign(of=best["constant"].map({True: "soonest constant", False: "soonest schedule"}))
    rows = pd.concat([usual.assign(of=str(DEFAULTS["batch_size"])), best])
    names = rows["schedule"].add(": ").where(rows["constant"].notna(), "")
    bounds = ["" if np.isnan(row.low) else f" ({interval(row.low, row.high)})" for row in rows.itertuples()]
    rows["told"] = names + rows["rmst"].map("{:,.0f}".format) + bounds
    wide = rows.pivot_table("told", ["operation", "setting"], "of", aggfunc="first", fill_value="–").reset_index()
    wide = pd.concat([of for _, of in by_operation(wide)], ignore_index=True).rename_axis(columns=None)
    return wide.assign(operation=wide["operation"].map(written))


# --- the sentences ----------------------------------------------------------------------------------------------------


def answer(t: Tuned, decided: Decided | None, table: pd.DataFrame) -> str:
    """The answer: one line, and the sentences that carry it; what lacks, and what the stages before say, until then."""
    if decided is None:
        return f"{t.lacks(SELECT, TUNED)} {until_then(table, t.source)}".strip()
    line = f"**{verdict_line(decided.beaten)}**"
    of_families = [family_line(decided.groks, family) for family in ("constants", "dynamic arms", "shapes")]
    return " ".join([line, times_line(table), *filter(None, of_families), ways_line(decided.beaten)])


def verdict_line(beaten: pd.DataFrame) -> str:
    """Whether a schedule beats the constants: in updates, at a lower cost, by one outcome alone, or not."""
    both = beaten[beaten["said"].str.startswith(BEATS)]
    tuned = "with rate and decay tuned for each"
    sooner = both[both["way"] == "sooner"]
    if len(sooner):
        told = f"Yes: {tuned}, there are schedules of the batch size that grok sooner than every constant one"
        alike = sooner["said"].str.contains(BESIDE).all()
        return told + (", if by no more than counts as the same or can be resolved." if alike else ".")
    if len(both):
        return (
            f"In updates no, in cost yes: {tuned}, no schedule of the batch size groks sooner than every constant one, "
            "but some reach 99 % at a cost in updates and examples that no constant one has."
        )
    if (beaten["said"] != "").any():
        return (
            f"Not by both outcomes: {tuned}, no schedule of the batch size both touches and keeps 99 % at a lower cost "
            "than the constants, but some do one of the two."
        )
    return f"No: {tuned}, no schedule of the batch size that was tried beats the constants."


def ways_line(beaten: pd.DataFrame) -> str:
    """How many schedules beat the constants, and what is to be said beside it."""
    pair = ["operation", "schedule"]
    n, both = (len(rows.drop_duplicates(pair)) for rows in (beaten, beaten[beaten["said"].str.startswith(BEATS)]))
    line = f"Of {n} schedules and operations {both} beat the constants by both outcomes ([Table](#beaten))."
    alike = int(beaten["said"].str.contains(BESIDE).sum())
    if alike:
        line += f" In {alike} rows of it the contrast with the soonest constant is equivalent or unresolved, too."
    if (beaten.loc[beaten["way"] == "frontier", "said"] != "").any():
        line += f" {CONVEX}"
    return line


def times_line(table: pd.DataFrame) -> str:
    """How soon 512 and the soonest constant are, tuned, and how much sooner than at the original's setting."""
    usual = table[table["schedule"] == USUAL].set_index(["operation", "setting"])["rmst"]
    told, times = [], []
    for row in soonest(table).query("constant and setting == @SETTINGS[1]").itertuples():
        bounds = "no interval" if np.isnan(row.low) else f"95 % interval {interval(row.low, row.high)}"
        told.append(f"{row.rmst:,.0f} on {written(row.operation)} (`{row.schedule}`, {bounds}, n = {row.n})")
        times.append(usual[row.operation, SETTINGS[0]] / usual[row.operation, SETTINGS[1]])
    sooner = f"{from_to(times, '{:.1f}')} times"
    n = sample_sizes(table[(table["schedule"] == USUAL) & (table["setting"] == SETTINGS[0])])
    return (
        f"The soonest constant batch sizes touch 99 % after {listed(told)} updates. Tuning makes "
        f"{DEFAULTS['batch_size']} itself {sooner} as fast as at the original's rate and decay ({n} there)."
    )


def family_line(groks: pd.DataFrame, family: str) -> str:
    """How the contrasts of a family came out by both outcomes, with the names of those that are sooner."""
    rows = groks[groks["family"] == family]
    if rows.empty:
        return ""
    words = {"constants": f"Another constant beside {DEFAULTS['batch_size']}", "shapes": "A geometric course"}
    who = words.get(family, "A schedule") + ("" if family == "constants" else " beside the soonest constant")
    told = [f"{said} in {n}" for said, n in Counter(rows["said"].replace("", "cannot tell")).most_common()]
    sooner = [f"`{r.schedule}` on {written(r.operation)}" for r in rows[rows["said"] == f"groks {SOONER}"].itertuples()]
    names = f" (sooner: {listed(sooner)})" if 0 < len(sooner) <= FEW else ""
    return f"{who}: {listed(told)} of {len(rows)} contrasts{names}."


def until_then(table: pd.DataFrame, source: str) -> str:
    """What the stage `source` alone shows, and why it is no verdict."""
    rows = soonest(table).query("setting == @SETTINGS[1]")
    if rows.empty:
        return ""
    constant, schedule = (rows[rows["constant"] == is_one].set_index("operation")["rmst"] for is_one in (True, False))
    both = constant.index.intersection(schedule.index)
    sooner = (constant[both] < schedule[both]).sum()
    return (
        f"{source.capitalize()} alone: on {sooner} of {len(both)} operations the soonest constant is sooner than "
        f"the soonest schedule ([Table](#answer-table), {sample_sizes(rows)}). These seeds also chose the cells, so "
        "the numbers err on the small side and decide nothing."
    )


def beaten_table(decided: Decided) -> pd.DataFrame:
    """`Decided.beaten` where a schedule beats the constants, or those within its own range: the rows with `within`."""
    key = ["operation", "schedule", "way"]
    table = decided.beaten.merge(decided.own_range.rename(columns={"said": "within"}), on=key, how="outer")
    return table[(table[["said", "within"]] != "").any(axis=1)].replace("", "–")


def lasting_line(t: Tuned) -> str:
    """What is left of a touch 500 updates later, in stage 3."""
    rows = t.lasting[t.lasting["outcome"] == "touch"] if len(t.lasting) else t.lasting
    if not t.complete(SELECT, TUNED) or rows.empty:
        return f"**What lasts.** {t.waits(SELECT, TUNED)}"
    share = rows["above"].sum() / rows["n"].sum()
    worst = rows.sort_values("share", kind="stable").iloc[0]
    return (
        f"**What lasts.** Of {rows['n'].sum():,} members of stage 3 that touch 99 % by their horizon less 500 updates, "
        f"{100 * share:.0f} % are above it 500 updates later. The least, {100 * worst['share']:.0f} %, are those of "
        f"`{worst['schedule']}` on {written(worst['operation'])} (n = {worst['n']})."
    )
