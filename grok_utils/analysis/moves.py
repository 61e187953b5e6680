"""What moves before a member groks: how far each measure has come by then, beside validation accuracy.

A member *memorises* at its first log of a training accuracy above 99 %, and *touches* 99 % at its first of such a
validation accuracy. A measure's *half* is the first log at which it has covered half of its change up to the touch,
counted from memorisation or from the first log. Half of a change comes before its end whatever happens, so that a half
before the touch says nothing: the yardstick is the half of validation accuracy itself.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import GROUP, MEMBER, THRESHOLD, by_cell, crossings
from grok_utils.analysis.intervals import median_interval
from grok_utils.analysis.measured import over_decades, shown, value
from grok_utils.measures import RATIOS, columns_of

ACCURACY = "val_accuracy"
APART = 50  # updates: where a member memorises and touches within fewer, there is no phase between the two
SMOOTH = 5  # logs: a ratio is of means over so many, the last of them its own
SINCE = ("memorisation", "the start")
BEYOND, STEP = 1.25, 0.025  # how far an aligned course goes, in touches, and its points


def phases(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a member: MEMBER, touch (as in `crossings`), memorised, first (log), in updates; NaN where it never does.

    Unlike for the touch, a run that ends early without having memorised is one that never does.
    """
    table = crossings(frame).set_index(MEMBER)[["updates"]].rename(columns={"updates": "touch"})
    fitted = frame[frame["train_accuracy"] > np.float32(THRESHOLD)]
    table["memorised"] = fitted.groupby(MEMBER)["update"].min().reindex(table.index).astype(float)
    return table.join(frame.groupby(MEMBER)["update"].min().rename("first")).reset_index()


def told(measures: Iterable[str]) -> list[str]:
    """The columns and ratios that are followed: of a ratio's parts not the one below the line."""
    columns = shown(measures)
    return [name for name in columns if name not in {RATIOS[ratio][1] for ratio in columns if ratio in RATIOS}]


def followed(frame: pd.DataFrame, measures: Iterable[str]) -> pd.DataFrame:
    """Of members that touch: MEMBER, update, touch, validation accuracy and each measure, in the order of time.

    A ratio is of means, and stands for the column below its line too, whose sign may be in doubt.
    """
    touch = phases(frame)[[*MEMBER, "touch"]].dropna()
    rows = frame.merge(touch, on=MEMBER).sort_values([*MEMBER, "update"], ignore_index=True)
    table = rows[[*MEMBER, "update", "touch", ACCURACY]].copy()
    for column in told(measures):
        parts = [*RATIOS.get(column, ())]
        means = rows.groupby(MEMBER)[parts].rolling(SMOOTH, 1).mean().droplevel(MEMBER).sort_index() if parts else rows
        table[column] = value(means, column)
    return table


def evened(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of `followed` with the logarithm of measures that go over decades; NaN where that is not positive."""
    names = [name for name in table.columns.drop([*MEMBER, "update", "touch", ACCURACY]) if over_decades(table[name])]
    return table.assign(**{name: np.log10(table[name].where(table[name] > 0)) for name in names})


def half(course: pd.Series) -> float:
    """The first update at which half of the change from the first log to the last is covered; `course` is by update.

    NaN where either is not known, and where the change is less than half of the range: it went there and back.
    """
    change, span = course.iloc[-1] - course.iloc[0], course.max() - course.min()
    if not change or not abs(change) >= span / 2:
        return np.nan
    return float(((course - course.iloc[0]) / change >= 0.5).idxmax())


def halves(frame: pd.DataFrame, measures: Iterable[str]) -> pd.DataFrame:
    """One row a member that touches, measure and start, where both are APART updates or more from each other.

    Columns: those of MEMBER, since, measure, start and end (its values), half (NaN: see there), lead (touch less half,
    in updates), share (of the touch), ahead (the half of validation accuracy less this one, in updates).
    """
    of_member = phases(frame).set_index(MEMBER)
    raw = followed(frame, measures)
    rows = []
    for (key, values), (_, course) in zip(raw.groupby(MEMBER), evened(raw).groupby(MEMBER), strict=True):
        member, values, course = of_member.loc[key], values.set_index("update"), course.set_index("update")
        for since, begin in zip(SINCE, (member["memorised"], member["first"]), strict=True):
            touch = member["touch"]
            if not touch - begin >= APART:
                continue
            accuracy = half(course.loc[begin:touch, ACCURACY])
            for measure in told(measures):
                at = half(course.loc[begin:touch, measure])
                row = dict(zip(MEMBER, key, strict=True)) | {"since": since, "measure": measure, "half": at}
                row |= {"start": values.loc[begin, measure], "end": values.loc[touch, measure]}
                rows.append(row | {"lead": touch - at, "share": (touch - at) / touch, "ahead": accuracy - at})
    columns = [*MEMBER, "since", "measure", "start", "end", "half", "lead", "share", "ahead"]
    return pd.DataFrame(rows, columns=columns)


def summary(halves: pd.DataFrame) -> pd.DataFrame:
    """Medians over the seeds that have a half, of each group, start and measure; those without any are left out.

    Columns: those of GROUP, since, measure, n, start, end, lead, share, ahead, and low and high of the last, with the
    exact 95 % interval of its median; moves: before or after validation accuracy, or cannot tell (it holds 0).
    """
    rows = []
    for key, of in by_cell(halves.sort_values("since", kind="stable"), ["since", "measure"]):  # memorisation first
        known = of.dropna(subset="ahead")
        if len(known):
            low, high = median_interval(known["ahead"])
            moves = "before" if low > 0 else "after" if high < 0 else "cannot tell"
            row = key | {"n": len(known)} | dict(known[["start", "end", "lead", "share", "ahead"]].median())
            rows.append(row | {"low": low, "high": high, "moves": moves})
    columns = [*GROUP, "since", "measure", "n", "start", "end", "lead", "share", "ahead", "low", "high", "moves"]
    return pd.DataFrame(rows, columns=columns)


def unknown(frame: pd.DataFrame, measures: Iterable[str]) -> pd.Series:
    """Of the logs up to the touch, in members that touch, the share in which each measure is not known, where any.

    A column that is null throughout an operation is not defined there: it counts on the others alone.
    """
    logs = followed(frame, measures).query("update <= touch")
    defined = frame[columns_of(measures)].notna().groupby(frame["operation"]).any()
    defined = defined.reindex(logs["operation"]).set_axis(logs.index)
    parts = {name: [*RATIOS.get(name, (name,))] for name in told(measures)}
    lacking = pd.Series({name: logs.loc[defined[of].all(axis=1), name].isna().mean() for name, of in parts.items()})
    return lacking[lacking > 0]


def gaps(members: pd.DataFrame) -> pd.DataFrame:
    """How long a group's seeds take from memorisation to the touch: a row a group of `phases`.

    Columns: those of GROUP, n, memorised and touched (of n), memorised_at, touch_at, gap (medians of those that do, in
    updates), low and high (the exact 95 % interval of the gap's median), together (seeds that do both within APART).
    """
    rows = []
    for key, of in by_cell(members):
        gap = (of["touch"] - of["memorised"]).dropna()
        low, high = median_interval(gap)
        row = key | {"n": len(of)} | {name: int(of[name].notna().sum()) for name in ("memorised", "touch")}
        row |= {"memorised_at": of["memorised"].median(), "touch_at": of["touch"].median(), "gap": gap.median()}
        rows.append(row | {"low": low, "high": high, "together": int((gap < APART).sum())})
    return pd.DataFrame(rows).rename(columns={"touch": "touched"})


def aligned(frame: pd.DataFrame, measures: Iterable[str]) -> pd.DataFrame:
    """How each measure goes in the members that touch, by the share of the touch: the median over a group's seeds.

    Columns: those of GROUP, measure, share (from 0 to BEYOND), level: of the least and the greatest value of the member
    up to there, 0 and 1. Left out where fewer than half of the seeds that touch have a value.
    """
    at = np.arange(0, BEYOND + STEP / 2, STEP)
    courses = []
    for key, course in evened(followed(frame, measures)).groupby(MEMBER):
        touch = course["touch"].iloc[0]
        levels = course.set_index("update")[[ACCURACY, *told(measures)]].loc[: BEYOND * touch]
        levels = (levels - levels.min()) / (levels.max() - levels.min())
        levels = levels.reindex(at * touch, method="ffill")  # of the last log by then
        courses.append(levels.assign(share=at, **dict(zip(MEMBER, key, strict=True))))
    if not courses:
        return pd.DataFrame(columns=[*GROUP, "measure", "share", "level"])
    table = pd.concat(courses).melt([*MEMBER, "share"], var_name="measure", value_name="level")
    found = table.groupby([*GROUP, "measure", "share"], sort=False)["level"].agg(["median", "count", "size"])
    return found.loc[2 * found["count"] >= found["size"], "median"].dropna().rename("level").reset_index()


def counts(summary: pd.DataFrame) -> pd.DataFrame:
    """In how many pairs of operation and arm each measure moves before or after validation accuracy, by what it is
    counted from: measure, since, pairs, before, after, cannot tell; rows as from `summary`."""
    table = summary.pivot_table("n", ["measure", "since"], "moves", "count", fill_value=0, sort=False)
    table = table.reindex(columns=["before", "after", "cannot tell"], fill_value=0).astype(int)
    return table.assign(pairs=table.sum(axis=1))[["pairs", *table]].reset_index()
