"""The tuned answer: stage 3's decisions, the sentences that carry them, and the points of the one figure.

`dose` is the table dose-response-table.csv of the page of the claims: the original's rate and decay, study `confirm`.
"""

from typing import NamedTuple

import pandas as pd

from grok_utils.analysis.crossings import by_operation
from grok_utils.analysis.intervals import mean_interval
from grok_utils.page.prose import from_to, interval, listed, sample_sizes
from grok_utils.pipeline.study_files import load_study
from grok_utils.studies import DEFAULTS, Arm, Scheduled
from grok_utils.tasks import written
from grok_utils.tuned import decisions
from grok_utils.tuned.choices import ARM
from grok_utils.tuned.decisions import BEATS, HORIZON, KEY, LATER, SOONER
from grok_utils.tuned.stages import constant_of
from grok_utils.tuned_page.reading import TUNED, Tuned

FIRST_STUDY = "confirm"  # of part one: the original's rate and decay
SETTINGS = ("original", "tuned")
KINDS = ("constant", "growing", "cyclic", "shrinking", "all pairs")  # the last is the limit of large batches
BESIDE = "its contrast with the comparator is"  # words of `decisions.beaten`
VERDICTS = [SOONER, decisions.EQUIVALENT, decisions.UNRESOLVED, LATER, decisions.DEPENDS, decisions.CANNOT_TELL]
CONVEX = (
    "The frontier is straight between constants that are a factor of 2 apart, and there lies up to 6 % above a "
    "hyperbola through them: an arm may lie below it by that curvature alone."
)
USUAL = constant_of(DEFAULTS["batch_size"])


class Decided(NamedTuple):
    """What stage 3 decides: the tables of `decisions`, over the horizons, and in words.

    contrasts: of `decisions.contrasts`; groks: both outcomes' verdicts in words; tests: of `beats_constants`, at
    HORIZON; beaten: where a schedule of a kind beats the constants, in words, and own_range: those within its own
    range.
    """

    contrasts: pd.DataFrame
    groks: pd.DataFrame
    tests: pd.DataFrame
    beaten: pd.DataFrame
    own_range: pd.DataFrame


def decide(t: Tuned) -> Decided:
    """What stage 3 decides."""
    at_each = {h: decisions.contrasts(members, t.chosen) for h, members in t.horizons.items()}
    compared = decisions.over_horizons(at_each, ["family", *KEY])
    studies = [study for name, study in t.loaded.items() if name.startswith(f"{TUNED}-")]
    tests, beaten = [], []
    for own_range in (False, True):
        against = decisions.rivals(studies, own_range)
        of = {h: decisions.beats_constants(members, t.chosen, against) for h, members in t.horizons.items()}
        found = decisions.over_horizons({h: decisions.ways(table) for h, table in of.items()}, ["way", *KEY])
        tests.append(of[HORIZON])
        said = decisions.beaten(found, compared)
        beaten.append(said.assign(kind=[kind_of(t.arms[name]) for name in said["schedule"]]))
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


def points(t: Tuned, dose: pd.DataFrame) -> pd.DataFrame:
    """Updates to 99 % against batch size: setting (of SETTINGS), operation, schedule, kind, n, reached, batch (the mean
    up to the touch), rmst, low, high, and, tuned, the mean of examples."""
    arms = {arm.name: arm for arm in load_study(FIRST_STUDY).arms} | t.arms
    first = dose.rename(columns={"dose": "batch"}).assign(setting=SETTINGS[0])
    rows = []
    for (operation, arm, outcome), of in decisions.at_chosen(t.horizons[HORIZON], t.chosen).groupby(ARM, sort=False):
        if outcome == "touch":
            found = mean_interval(of["restricted"], least=0)
            batch = (of["restricted_examples"] / of["restricted"]).mean()
            row = {"operation": operation, "schedule": arm, "n": found.n, "reached": int(of["reached"].sum())}
            row |= {"batch": batch, "examples": of["restricted_examples"].mean()}
            rows.append(row | {"rmst": found.mean, "low": found.low, "high": found.high})
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
    names = rows["schedule"].replace(USUAL, f"{DEFAULTS['batch_size']}").add(": ").where(rows["constant"].notna(), "")
    bounds = [f" ({interval(row.low, row.high)})" for row in rows.itertuples()]
    rows["told"] = names + rows["rmst"].map("{:,.0f}".format) + bounds
    wide = rows.pivot_table("told", ["operation", "setting"], "of", aggfunc="first", fill_value="–").reset_index()
    wide = pd.concat([of for _, of in by_operation(wide)], ignore_index=True).rename_axis(columns=None)
    return wide.assign(operation=wide["operation"].map(written))


# --- the sentences ----------------------------------------------------------------------------------------------------


def answer(decided: Decided, table: pd.DataFrame) -> str:
    """The answer: one line, and the sentences that carry it."""
    told = [times_line(table), contrasts_line(decided), ways_line(decided.beaten)]
    return " ".join([f"**{verdict_line(decided.beaten)}**", *told])


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
    told = f"No: {tuned}, no schedule of the batch size beats the constant ones"
    some = beaten[beaten["said"] != ""]
    if some.empty:
        return f"{told}."
    shrink = "All of those shrink the batch." if (some["kind"] == "shrinking").all() else ""
    return f"{told} both in touching 99 % and in keeping it. Some do one of the two. {shrink}".rstrip()


def ways_line(beaten: pd.DataFrame) -> str:
    """How many schedules beat the constants, of which kind they are, and what is to be said beside it."""
    pair, some = ["operation", "schedule"], beaten[beaten["said"] != ""]
    n, both, told = (
        len(rows.drop_duplicates(pair)) for rows in (beaten, some[some["said"].str.startswith(BEATS)], some)
    )
    line = f"Of {n} pairs of a schedule and an operation, {both or 'none'} beat the constants by both outcomes"
    if told:
        kinds = listed(f"{of} {kind}" for kind, of in some.drop_duplicates(pair)["kind"].value_counts().items())
        line += f" and {told - both} by one, of these {kinds}"
    line += " ([Table](#beaten))."
    alike = int(beaten["said"].str.contains(BESIDE).sum())
    if alike:
        line += f" In {alike} rows of it the contrast with the soonest constant is equivalent or unresolved, too."
    if (beaten.loc[beaten["way"] == "frontier", "said"] != "").any():
        line += f" {CONVEX}"
    return line


def times_line(table: pd.DataFrame) -> str:
    """How soon 512 and the soonest constant are, tuned, and how much sooner than at the original's setting."""
    usual = table[table["schedule"] == USUAL].set_index(["operation", "setting"])
    best = soonest(table).query("constant and setting == @SETTINGS[1]")
    told = [f"{row.rmst:,.0f} on {written(row.operation)} ({interval(row.low, row.high)})" for row in best.itertuples()]
    times = [usual["rmst"][o, SETTINGS[0]] / usual["rmst"][o, SETTINGS[1]] for o in best["operation"]]
    n = sample_sizes(usual.xs(SETTINGS[0], level="setting"))
    faster, of = from_to(times, "{:.1f}"), f"[Table](#answer-table), 95 % intervals, {sample_sizes(best)}"
    return (
        f"Tuned, the soonest constant batch touches 99 % after this many updates: {listed(told)}. These are means "
        f"restricted at {HORIZON:,} updates ({of}). Tuning makes "
        f"a batch of {DEFAULTS['batch_size']} itself {faster} times as fast as at the original's rate "
        f"and decay ({n} there)."
    )


def contrasts_line(decided: Decided) -> str:
    """How many contrasts of either sort are sooner, and how many later."""
    tested = decided.contrasts[decided.contrasts["verdict"] != ""]
    constants = tested["family"] == "constants"
    told = [
        f"Of {len(of)} contrasts of {what}, it is sooner in {(of['verdict'] == SOONER).sum() or 'none'} and later in "
        f"{(of['verdict'] == LATER).sum() or 'none'}."
        for what, of in {
            f"another constant with {DEFAULTS['batch_size']}": tested[constants],
            "a schedule with the soonest constant": tested[~constants],
        }.items()
    ]
    return f"{' '.join(told)} The others depend on the horizon or cannot be told ([Table](#by-kind))."


def by_kind(t: Tuned, decided: Decided) -> pd.DataFrame:
    """How stage 3's contrasts came out: kind of arm, outcome, contrasts, and how many have each verdict."""
    table = decided.contrasts[decided.contrasts["verdict"] != ""]
    size = DEFAULTS["batch_size"]

    def kind(arm: Arm) -> str:
        at = arm.settings.batch_size
        return f"constant {'below' if at < size else 'above'} {size}" if isinstance(at, int) else kind_of(arm)

    kinds = [kind(t.arms[name]) for name in table["schedule"]]
    key = ["kind", "outcome"]
    counts = table.assign(kind=kinds).pivot_table("n", key, "verdict", "size", fill_value=0)
    counts = counts.reindex(columns=VERDICTS, fill_value=0).rename_axis(columns=None)
    counts.insert(0, "contrasts", counts.sum(axis=1))
    return counts.sort_index(ascending=[True, False]).reset_index()


def beaten_table(decided: Decided) -> pd.DataFrame:
    """`Decided.beaten` where a schedule beats the constants, or those within its own range: the rows with `within`."""
    key = ["operation", "schedule", "way"]
    own_range = decided.own_range[[*key, "said"]].rename(columns={"said": "within"})
    table = decided.beaten.merge(own_range, on=key, how="outer")
    table = table[(table[["said", "within"]] != "").any(axis=1)].replace("", "–")
    return pd.concat([of for _, of in by_operation(table)]) if len(table) else table


def lasting_line(t: Tuned) -> str:
    """What is left of a touch 500 updates later, in stage 3."""
    rows = t.lasting[t.lasting["outcome"] == "touch"]
    share = rows["above"].sum() / rows["n"].sum()
    worst = rows.sort_values("share", kind="stable").iloc[0]
    return (
        f"**What lasts.** Of {rows['n'].sum():,} members of stage 3 that touch 99 % by their horizon less 500 updates, "
        f"{100 * share:.0f} % are above it 500 updates later. The least, {100 * worst['share']:.0f} %, are those of "
        f"`{worst['schedule']}` on {written(worst['operation'])} (n = {worst['n']})."
    )
