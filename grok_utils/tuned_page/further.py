"""Shapes, controls, the permutation task that "did not grok", and the original's own code: tables and words."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import by_operation, crossings, in_order
from grok_utils.analysis.equivalence import as_drawn, unpaired_ratio
from grok_utils.analysis.summaries import summarise
from grok_utils.page.prose import from_to, listed
from grok_utils.store.records import read_study
from grok_utils.tasks import written
from grok_utils.tuned import choices, stages
from grok_utils.tuned.choices import ARM
from grok_utils.tuned.claims import S5
from grok_utils.tuned.decisions import HORIZONS, at_chosen
from grok_utils.tuned.stages import FOLLOWS, OTHER, SIZES, UNCHANGED, constant_of, kinds
from grok_utils.tuned_page.answer import SETTINGS, USUAL
from grok_utils.tuned_page.choosing import best_cells
from grok_utils.tuned_page.reading import CONTROLS, ORACLE, SHAPES, Tuned

KNOWN = (*stages.CONTROLS, FOLLOWS, OTHER)  # with what the names of their arms end; after FOLLOWS the rate at 512
NAMED = rf"^(?P<schedule>.+?)-(?P<control>{'|'.join(map(re.escape, KNOWN))})(?:-(?P<rate>.+))?$"
THERE = ["control", "operation", "outcome"]  # where arms are compared
DRAWN = 8 * 512  # validation examples that the original draws for each log
WITHIN = 0.25  # of 1, a ratio of two programs that agree


def shapes(t: Tuned, surface: pd.DataFrame) -> pd.DataFrame:
    """The best cells of the geometric courses by touch, and of the constants that are their ends, W = 0: operation,
    schedule, first, last (batch sizes), within, median; `surface` as from `choices.ranked`."""
    members = t.members[SHAPES]
    courses = {name: (of["lo"], of["hi"], of["length"]) for name, of in stages.SHAPES.items()}
    courses |= {constant_of(size): (size, size, 0) for size in SIZES}
    best = choices.best(pd.concat([choices.ranked(members), surface], ignore_index=True))
    best = best[(best["outcome"] == "touch") & best["schedule"].isin(courses)]
    best = best[best["operation"].isin(members["operation"])]
    columns = pd.DataFrame([courses[arm] for arm in best["schedule"]], best.index, ["first", "last", "within"])
    return best[["operation", "schedule", "median"]].join(columns)


def shapes_line(table: pd.DataFrame) -> str:
    """Which courses are the soonest in their first stage, and whether growing ones are sooner than shrinking ones."""
    told = []
    for operation, of in by_operation(table):
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


def controls(t: Tuned) -> pd.DataFrame:
    """The best cell of each arm, operation and outcome in each control, six seeds by which it was chosen.

    Rows of `choosing.best_cells`, schedule without the control (a rate that follows the batch is that at 512), with
    control, tuned (the arm's median where nothing is changed; NaN in those rows) and ratio (the median over that of 512
    in the same control, a schedule's over tuned; inf where it never groks, NaN where the other does not).
    """
    members = t.members[CONTROLS]
    named = members["schedule"].str.extract(NAMED)
    rate = named.pop("rate").astype(float).fillna(members["learning_rate"])
    members = members.assign(**named, learning_rate=rate)
    each = [(c, of) for c in KNOWN for _, of in by_operation(members[members["control"] == c])]
    best = pd.concat([best_cells(choices.ranked(of), of).assign(control=control) for control, of in each])
    best["edge"] = best["edge"].where(best["tried"] > 1, "")
    usual = best[best["schedule"] == USUAL].set_index(THERE)["median"]
    tuned = best[best["control"] == UNCHANGED].set_index(ARM)["median"]
    best = best.join(usual.rename("usual"), on=THERE).join(tuned.rename("tuned"), on=ARM)
    best["tuned"] = best["tuned"].mask(best["control"] == UNCHANGED)
    over = best.pop("usual").where(best["schedule"].isin(kinds(best)[0]), best["tuned"])
    best["ratio"] = best["median"] / over.where(np.isfinite(over))
    return best.sort_values("outcome", ascending=False, kind="stable")  # touch, then kept


def orders(table: pd.DataFrame) -> pd.Series:
    """Of THERE, whether the constants' order is that of where nothing is changed: yes, soonest only, no, or – where
    that is not known or more than one never groks. Equal medians stand in either order."""

    def kept(of: pd.DataFrame) -> str:
        of = of[of["schedule"].isin(kinds(of)[0])].dropna(subset="tuned")
        if len(of) < 2 or np.isinf(of["median"]).sum() > 1:
            return "–"
        here, there = (of.sort_values(by)["schedule"].tolist() for by in (["median", "tuned"], ["tuned", "median"]))
        return "yes" if here == there else "soonest only" if here[0] == there[0] else "no"

    return table.groupby(THERE, sort=False)[["schedule", "median", "tuned"]].apply(kept)


def controls_table(table: pd.DataFrame) -> pd.DataFrame:
    """A row a control and operation: of each arm median and ratio by touch / by kept, and `orders` by either."""
    told = [
        (f"{row.median:,.0f}" if np.isfinite(row.median) else "never")
        + (" *" if row.edge else "")
        + (f" ({row.ratio:.2f})" if np.isfinite(row.ratio) and row.schedule != USUAL else "")
        for row in table.itertuples()
    ]
    table = table.assign(control=table["control"].replace(OTHER, written(OTHER)))
    arms = table.assign(told=told).pivot_table("told", THERE[:2], "schedule", " / ".join, sort=False)
    order = orders(table).groupby(THERE[:2], sort=False).agg(" / ".join)
    return arms[in_order(arms)].join(order.rename("order as tuned")).fillna("–").reset_index()


def controls_line(table: pd.DataFrame) -> str:
    """Whether the order of the constants stays as tuned, and the ratios to 512."""
    told, order = [], orders(table)
    if len(order := order[order != "–"]):
        for by, of in order.groupby("outcome", sort=False):
            same, first = (of.isin(kept).sum() for kept in (["yes"], ["yes", "soonest only"]))
            told.append(
                f"By {by}, {same} of {len(of)} pairs of a control and an operation leave the constants' order as "
                f"tuned, and {first} the soonest of them."
            )
    follows = table[(table["control"] == FOLLOWS) & np.isfinite(table["ratio"])]
    for arm, of in follows.groupby("schedule", sort=False):
        ratios = from_to(of["ratio"], "{:.2f}")
        told.append(f"Where its rate follows √(B/512), `{arm}` needs {ratios} times its updates as tuned.")
    tried = table[table["tried"] > 1]
    told.append(f"Of {len(tried)} best cells {(tried['edge'] != '').sum()} lie on the edge of their small grids.")
    of_other = table[(table["control"] == OTHER) & np.isfinite(table["median"])]
    if len(soonest := of_other.sort_values("median").drop_duplicates("outcome")):
        of = listed(f"`{row.schedule}` by {row.outcome}" for row in soonest.itertuples())
        told.append(f"On {written(OTHER)}, at the common cells alone, the soonest constant is {of}.")
    elif (table["control"] == OTHER).any():
        told.append(f"On {written(OTHER)} no constant groks at its common cell.")
    return " ".join(told)


def permutation(t: Tuned, points: pd.DataFrame) -> pd.DataFrame:
    """Permutation, tuned: schedule, n, reached, share with low and high, updates (mean, by `horizon`), kept (how many
    seeds keep it by then at that cell), and there, how many reach at the original's rate and decay, from
    `answer.points`."""
    members = at_chosen(t.horizons[HORIZONS[-1]], t.chosen).assign(horizon=HORIZONS[-1])
    members = members[members["operation"] == S5]
    found = members[members["outcome"] == "touch"]
    keeps = members[members["outcome"] == "kept"].groupby("schedule")["reached"].sum().astype(int)
    table = summarise(found).rename(columns={"rmst": "updates", "share_low": "low", "share_high": "high"})
    there = points[(points["operation"] == S5) & (points["setting"] == SETTINGS[0])].set_index("schedule")
    told = there["reached"].astype(str) + " of " + there["n"].astype(str)
    table = table.join(told.rename("there"), on="schedule").fillna({"there": "–"})
    table = table.join(keeps.rename("kept"), on="schedule")
    columns = ["schedule", "n", "reached", "share", "low", "high", "updates", "kept", "horizon", "there"]
    return table[columns].sort_values("updates", kind="stable", ignore_index=True)


def permutation_line(table: pd.DataFrame) -> str:
    """Whether permutation groks once rate and decay are tuned."""
    whole, best = table[table["reached"] == table["n"]], table.iloc[0]
    return (
        f"Tuned, {written(S5)} touches 99 % in every seed of {len(whole)} of {len(table)} arms, by "
        f"{best['horizon']:,} updates. The soonest of these, `{whole['schedule'].iloc[0]}`, touches it after "
        f"{whole['updates'].iloc[0]:,.0f}, and keeps it in {whole['kept'].iloc[0]} of {whole['n'].iloc[0]} seeds: its "
        "cell was chosen by touch."
    )


def original(t: Tuned, results: Path | str) -> pd.DataFrame:
    """`beside_original` of the records of ORACLE and of `original.csv` beside them; no rows without that file."""
    file = Path(results, ORACLE, "original.csv")
    if not file.exists():
        return pd.DataFrame()
    return beside_original(read_study(t.loaded[ORACLE], results)[0], pd.read_csv(file))


def beside_original(frame: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Our logs, scored as the original scores its own, beside `theirs`: operation, run, updates (NaN: never 99 %).

    A row an operation: our n, reached and mean (geometric, of the updates to 99 % of runs that reach), the same of
    theirs as their_n and so on, and ratio (ours over theirs) with its 90 % interval, low and high.
    """
    rows = []
    for operation, ours in by_operation(crossings(as_drawn(frame, DRAWN))):
        a, of = ours["updates"].dropna(), theirs[theirs["operation"] == operation]
        b = of["updates"].dropna()
        ratio, low, high = unpaired_ratio(a, b)
        row = {"operation": operation, "n": len(ours), "reached": len(a), "mean": np.exp(np.log(a).mean())}
        row |= {"their_n": len(of), "their_reached": len(b), "their_mean": np.exp(np.log(b).mean())}
        rows.append(row | {"ratio": ratio, "low": low, "high": high})
    return pd.DataFrame(rows)


def original_line(table: pd.DataFrame) -> str:
    """On how many operations the original's own code and ours agree."""
    if table.empty:
        return "The original's own code has not been run at this cell."
    agree = table[(table["low"] >= 1 - WITHIN) & (table["high"] <= 1 + WITHIN)]
    return (
        f"The original's own training code, with nothing but its rate and decay changed to the common cell of batch "
        f"512, agrees with ours on {len(agree)} of {len(table)} operations ([Table](#original)): the 90 % interval of "
        f"the ratio of updates lies within ± {100 * WITHIN:.0f} %. Elsewhere that interval is wider."
    )
