"""The tuned answer: stage 3's decisions, the sentences that carry them, and the points of the one figure.

"Tuned" is stage 3. What is beside it, at the original's rate and decay, is study `confirm`.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import rows_in_order
from grok_utils.analysis.intervals import mean_interval
from grok_utils.page.prose import from_to, interval, listed
from grok_utils.pipeline.study_files import load_study
from grok_utils.store.records import read_study
from grok_utils.studies import DEFAULTS, Arm, Scheduled
from grok_utils.tasks import written
from grok_utils.tuned import choices, decisions
from grok_utils.tuned.choices import ARM
from grok_utils.tuned.decisions import BEATS, HORIZON, HORIZONS, KEY, LATER, OUTCOMES, SOONER
from grok_utils.tuned.stages import constant_of
from grok_utils.tuned_page.reading import TUNED, Tuned

FIRST_STUDY = "confirm"  # of part one: the original's rate and decay
SETTINGS = ("original", "tuned")
KINDS = ("constant", "growing", "cyclic", "shrinking", "all pairs")  # the last is the limit of large batches
BESIDE = "its contrast with the comparator is"  # words of `decisions.beaten`
VERDICTS = {  # of contrasts, as a table counts them
    "sooner": [SOONER],
    "later": [LATER],
    "alike": [decisions.EQUIVALENT, decisions.UNRESOLVED],
    "by horizon": [decisions.DEPENDS],
    "cannot tell": [decisions.CANNOT_TELL],
}
CONVEX = (
    "The frontier is straight between constants that are a factor of 2 apart, and there lies up to 6 % above a "
    "hyperbola through them: an arm may lie below it by that curvature alone."
)
STATED = "All of this is with warm-up, betas and architecture as the original has them ([controls](#section-controls))."
USUAL = constant_of(DEFAULTS["batch_size"])


class Decided(NamedTuple):
    """What stage 3 decides: the tables of `decisions`, over the horizons, and in words.

    contrasts: of `decisions.contrasts`; tests: of `beats_constants`, at HORIZON; beaten: where a schedule of a kind
    beats the constants, in words, and own_range: those within its own range.
    """

    contrasts: pd.DataFrame
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
    return Decided(compared, tests[0], *beaten)


# --- what is drawn ----------------------------------------------------------------------------------------------------


def kind_of(arm: Arm) -> str:
    """Of KINDS, by how the arm's batch size goes."""
    batch_size = arm.settings.batch_size
    if not isinstance(batch_size, Scheduled):
        return KINDS[-1] if batch_size == "all" else "constant"
    if batch_size.schedule == "cyclic":
        return "cyclic"
    return "growing" if batch_size.lo < batch_size.hi else "shrinking"


def before(results: Path | str) -> pd.DataFrame:
    """The rows of `choices.outcomes` at the original's rate and decay, from the records of FIRST_STUDY."""
    return choices.outcomes(read_study(load_study(FIRST_STUDY), results)[0])


def points(t: Tuned, first: pd.DataFrame, outcome: str = OUTCOMES[0], horizon: int = HORIZON) -> pd.DataFrame:
    """Updates to 99 % by an outcome against batch size, tuned up to a horizon: setting (of SETTINGS), operation,
    schedule, kind, n, reached, batch (the mean up to there), rmst, low, high and examples; `first` as from `before`.
    Kept on permutation is left out: no cell is chosen by it."""
    arms = {arm.name: arm for arm in load_study(FIRST_STUDY).arms} | t.arms
    rows = []
    for setting, members in zip(SETTINGS, (first, decisions.at_chosen(t.horizons[horizon], t.chosen)), strict=True):
        members = members[decisions.in_families(members) & (members["outcome"] == outcome)]
        for (operation, arm), of in members.groupby(ARM[:2], sort=False):
            found = mean_interval(of["restricted"], least=0)
            row = {"setting": setting, "operation": operation, "schedule": arm, "kind": kind_of(arms[arm])}
            row |= {"n": found.n, "reached": int(of["reached"].sum())}
            row |= {"batch": (of["restricted_examples"] / of["restricted"]).mean(), "rmst": found.mean}
            rows.append(row | {"low": found.low, "high": found.high, "examples": of["restricted_examples"].mean()})
    return pd.DataFrame(rows)


def soonest(table: pd.DataFrame) -> pd.DataFrame:
    """The soonest constant and the soonest schedule of each operation and setting of `points`, told by `constant`."""
    known = table[table["kind"] != KINDS[-1]].assign(constant=table["kind"] == "constant")
    found = known.sort_values("rmst", kind="stable").drop_duplicates(["setting", "operation", "constant"])
    return rows_in_order(found, setting=True, constant=False)


def tuned_constants(table: pd.DataFrame) -> pd.DataFrame:
    """The tuned constants of `soonest`, a row an operation."""
    return soonest(table).query("constant and setting == @SETTINGS[1]")


def answer_table(t: Tuned, touch: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """The answer in numbers from `points` by either outcome, a row an operation, outcome and setting: 512, soonest
    constant, soonest schedule. One whose cell stage 2 found not eligible has a †."""
    eligible = decisions.everywhere(t.chosen).set_index(ARM)["eligible"]
    tables = []
    for outcome, table in zip(OUTCOMES, (touch, kept), strict=True):
        best, usual = soonest(table), table[table["schedule"] == USUAL]
        best = best.assign(of=best["constant"].map({True: "soonest constant", False: "soonest schedule"}))
        tables.append(pd.concat([usual.assign(of=str(DEFAULTS["batch_size"])), best]).assign(outcome=outcome))
    rows = pd.concat(tables)
    names = rows["schedule"].replace(USUAL, f"{DEFAULTS['batch_size']}").add(": ").where(rows["constant"].notna(), "")
    bounds = [
        f" ({interval(row.low, row.high)})"
        + (" †" if row.setting == SETTINGS[1] and not eligible[row.operation, row.schedule, row.outcome] else "")
        for row in rows.itertuples()
    ]
    rows["told"] = names + rows["rmst"].map("{:,.0f}".format) + bounds
    wide = rows.pivot_table("told", ["operation", "outcome", "setting"], "of", aggfunc="first", sort=False)
    table = rows_in_order(wide.reset_index().rename_axis(columns=None), outcome=False, setting=True)
    return table.assign(operation=table["operation"].map(written))


# --- the sentences ----------------------------------------------------------------------------------------------------


def answer(t: Tuned, decided: Decided, first: pd.DataFrame, touch: pd.DataFrame, kept: pd.DataFrame) -> str:
    """The answer: one line, and the sentences that carry it; `first` as from `before`, the others as from `points`."""
    lead = f"**{verdict_line(decided.beaten)}** {times_line(t, first, touch, kept)}"
    return "\n\n".join([lead, f"{contrasts_line(decided)} {ways_line(decided.beaten)}", STATED])


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
    told = f"No: {tuned}, no schedule of the batch size is shown to beat the constant ones"
    some = beaten[beaten["said"] != ""]
    if some.empty:
        return f"{told}."
    shrink = "All of those shrink the batch." if (some["kind"] == "shrinking").all() else ""
    return f"{told} both in touching 99 % and in keeping it. Some do one of the two. {shrink}".rstrip()


def ways_line(beaten: pd.DataFrame) -> str:
    """How many schedules beat the constants, of which kind they are, and what is to be said beside it."""
    pair, beats = ["operation", "schedule"], beaten["said"].str.startswith(BEATS)
    some = beaten[beaten["said"] != ""]
    n, both, told = (len(rows.drop_duplicates(pair)) for rows in (beaten, beaten[beats], some))
    line = f"Of {n} pairs of a schedule and an operation, {both or 'none'} beat the constants by both outcomes"
    if told:
        counts = some.drop_duplicates(pair)["kind"].value_counts()
        kinds = f"all {counts.index[0]}" if len(counts) == 1 else listed(f"{of} {kind}" for kind, of in counts.items())
        line += f" and {told - both} by one ({kinds})"
    line += " ([Table](#beaten))."
    alike = int(beaten["said"].str.contains(BESIDE).sum())
    if alike:
        line += f" In {alike} rows of it the contrast with the comparator is equivalent or unresolved, too."
    if (beaten.loc[beaten["way"] == "frontier", "said"] != "").any():
        line += f" {CONVEX}"
    return line


def times_line(t: Tuned, first: pd.DataFrame, touch: pd.DataFrame, kept: pd.DataFrame) -> str:
    """How soon the soonest constant is, tuned, how much sooner 512 is than at the original's setting, what lasts."""
    late_touch, late_kept = (points(t, first, outcome, HORIZONS[-1]) for outcome in OUTCOMES)
    late, best = tuned_constants(late_touch)["schedule"], tuned_constants(touch)
    usual = touch[touch["schedule"] == USUAL].set_index(["setting", "operation"])
    size, example = DEFAULTS["batch_size"], best["operation"].iloc[0]
    then, now = (usual.loc[(setting, example)] for setting in SETTINGS)
    fails = [
        f"On {written(operation)} that is a lower bound, as {row.n - row.reached} of {row.n} seeds do not get there at "
        "the original's."
        for operation, row in usual.loc[SETTINGS[0]].iterrows()
        if row.reached <= row.n / 2
    ]
    lasting = t.lasting[t.lasting["outcome"] == "touch"]
    share = lasting["above"].sum() / lasting["n"].sum()
    said = [
        f"Tuning makes a batch of {size} itself {from_to(faster(touch), '{:.1f}')} times as fast to touch 99 %.",
        f"On {written(example)}, for example, {now.rmst:,.0f} updates (95 % interval {interval(now.low, now.high)}, "
        f"n = {now.n}) are enough instead of {then.rmst:,.0f} ({interval(then.low, then.high)}, n = {then.n}).",
        *fails,
        f"To keep 99 % it is {from_to(faster(kept), '{:.1f}')} times as fast.",
        f"The soonest constant touches 99 % after {from_to(best['rmst'], '{:,.0f}')} updates, by operation "
        f"([Table](#answer-table), means restricted at {HORIZON:,}).",
        f"At some of these rates a seed fails. With failures counted as {HORIZONS[-1]:,} updates, as at the "
        f"original's, tuning makes {size} {from_to(faster(late_touch), '{:.1f}')} and "
        f"{from_to(faster(late_kept), '{:.1f}')} times as fast, and {size} is the soonest constant on "
        f"{(late == USUAL).sum()} of {len(late)} operations.",
        f"A touch often does not last: {100 * share:.0f} % of the {lasting['n'].sum():,} members that touch 99 % by "
        "their horizon less 500 updates are above it 500 updates later.",
    ]
    return " ".join(said)


def faster(table: pd.DataFrame) -> list[float]:
    """How many times as fast 512 is tuned as at the original's setting, on each operation of `points`."""
    rmst = table[table["schedule"] == USUAL].pivot_table("rmst", "operation", "setting")
    return (rmst[SETTINGS[0]] / rmst[SETTINGS[1]]).dropna().tolist()


def contrasts_line(decided: Decided) -> str:
    """How many contrasts of either sort are sooner, and how many later."""
    tested = decided.contrasts[decided.contrasts["verdict"] != ""]
    constants = tested["family"] == "constants"
    told = [
        f"Of {len(of)} contrasts of {what}, it is sooner in {(of['verdict'] == SOONER).sum() or 'none'} and later in "
        f"{(of['verdict'] == LATER).sum() or 'none'}."
        for what, of in {
            f"another constant with {DEFAULTS['batch_size']}": tested[constants],
            "a schedule with its comparator, the constant that was soonest in stage 2": tested[~constants],
        }.items()
    ]
    return f"{' '.join(told)} Most others depend on the horizon, or one cannot tell ([Table](#by-kind))."


def by_kind(t: Tuned, decided: Decided) -> pd.DataFrame:
    """How stage 3's contrasts came out: kind of arm, outcome, contrasts, and how many have each of VERDICTS."""
    table = decided.contrasts[decided.contrasts["verdict"] != ""]
    size = DEFAULTS["batch_size"]

    def kind(arm: Arm) -> str:
        at = arm.settings.batch_size
        return f"constant {'below' if at < size else 'above'} {size}" if isinstance(at, int) else kind_of(arm)

    said = {verdict: name for name, verdicts in VERDICTS.items() for verdict in verdicts}
    table = table.assign(kind=[kind(t.arms[name]) for name in table["schedule"]], verdict=table["verdict"].map(said))
    counts = table.pivot_table("n", ["kind", "outcome"], "verdict", "size", fill_value=0)
    counts = counts.reindex(columns=[*VERDICTS], fill_value=0).rename_axis(columns=None)
    counts.insert(0, "contrasts", counts.sum(axis=1))
    return counts.sort_index(ascending=[True, False]).reset_index()


def beaten_table(t: Tuned, decided: Decided, touch: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """`Decided.beaten` where a schedule beats the constants, or those within its own range of sizes: operation,
    schedule, kind, said, own_range (whether it beats these too, these alone, or not), and by the outcome that `said`
    begins with updates, those of its comparator and of the soonest constant in stage 3."""
    key = ["operation", "schedule", "kind", "way"]
    table = decided.beaten.merge(decided.own_range.rename(columns={"said": "within"}), on=key, how="outer")
    table = table[(table[["said", "within"]] != "").any(axis=1)]
    if table.empty:
        return table.reindex(columns=[*key, "said", "own_range", "updates", "comparator", "soonest"])
    own_range = np.select([table["within"] == "", table["said"] == ""], ["no", "alone"], "too")
    table = table.assign(said=table["said"].where(table["said"] != "", table.pop("within")), own_range=own_range)
    by, best = {}, {}
    for outcome, of in zip(OUTCOMES, (touch, kept), strict=True):
        by[outcome] = of[of["setting"] == SETTINGS[1]].set_index(["operation", "schedule"])["rmst"]
        best[outcome] = tuned_constants(of).set_index("operation")["schedule"]
    comparators = decisions.everywhere(t.chosen).set_index(ARM)["comparator"]
    rows = []
    for row in table.itertuples():
        outcome = OUTCOMES[row.said.startswith(decisions.VERBS[OUTCOMES[1]])]
        of, comparator = by[outcome][row.operation], comparators[row.operation, row.schedule, outcome]
        others = {"comparator": comparator, "soonest": best[outcome][row.operation]}
        told = {name: f"{t.arms[arm].settings.batch_size}: {of[arm]:,.0f}" for name, arm in others.items()}
        rows.append({"updates": of[row.schedule]} | told)
    return rows_in_order(table.join(pd.DataFrame(rows, table.index)))
