"""The figures of the evidence over several studies, in the style of `page.figures`."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from grok_utils.analysis.crossings import in_order
from grok_utils.page.descriptions import ROWS, extremes, in_each, of_cells
from grok_utils.page.style import INK, Picture, curve, look, panels, short

DOUBLINGS = [32, 64, 128, 256, 512]  # batch sizes with a tick


def dose_response(table: pd.DataFrame) -> Picture:
    """RMST against dose, from `effects.dose_response`: constants on a line in its band, and the arms that change."""

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        constants = rows[rows["constant"]].sort_values("dose")
        ax.fill_between(constants["dose"], constants["low"], constants["high"], color=INK, alpha=0.2, linewidth=0)
        ax.plot(constants["dose"], constants["rmst"], color=INK, linewidth=1)
        for row in rows.to_dict("records"):
            k = look(row["schedule"])
            if not row["constant"]:
                ax.plot([row["dose"]] * 2, [row["low"], row["high"]], color=k.colour, linewidth=1.4)
            ax.plot(row["dose"], row["rmst"], k.marker, color=k.colour, markersize=4 if row["constant"] else 6)
        ax.set_xscale("log", base=2)
        ax.set(xticks=DOUBLINGS, ylim=(0, 1.05 * table[["rmst", "high"]].max(axis=None)))
        ax.xaxis.set_major_formatter(short)
        ax.yaxis.set_major_formatter(short)

    def say(rows: pd.DataFrame) -> str:
        parts = {"constants": rows[rows["constant"]], "others": rows[~rows["constant"]]}
        return ", ".join(f"{words} {extremes(of.set_index('schedule')['rmst'])}" for words, of in parts.items())

    alt = (
        "Line chart of updates to 99 % validation accuracy against mean batch size, a panel for each operation, "
        f"constant batches joined by a line, arms that change theirs as points. Restricted means: {in_each(table, say)}"
    )
    changing = in_order(table.loc[~table["constant"], "schedule"])
    return panels(table, draw, alt, "mean batch size up to the crossing", "updates to 99 % (RMST)", changing)


def forest(table: pd.DataFrame, margins: Mapping[str, float], xlabel: str, less: str, legend: bool = False) -> Picture:
    """A difference with its 95 % interval a row, an operation a panel; the band is ± the margin of equivalence.

    `table`: operation, label (the row's name), arm (gives the look), difference, low, high (NaN: no interval). Rows of
    one label share a line, one below the other. A legend names the arms that their labels do not. `less` says in words
    what the differences are from.
    """
    labels = list(dict.fromkeys(table["label"]))
    arms = in_order(table.loc[table["label"] != table["arm"], "arm"]) if legend else []

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        margin = margins.get(rows["operation"].iloc[0], np.nan)
        if np.isfinite(margin):
            ax.axvspan(-margin, margin, color=INK, alpha=0.2, linewidth=0)
        ax.axvline(0, color=INK, linewidth=0.8)
        for row in rows.to_dict("records"):
            k = look(row["arm"])
            shift = 0.66 * arms.index(row["arm"]) / len(arms) - 0.22 if row["arm"] in arms else 0
            y = labels.index(row["label"]) + shift
            ax.plot([row["low"], row["high"]], [y, y], color=k.colour, linewidth=1.8, solid_capstyle="butt")
            ax.plot(row["difference"], y, k.marker, color=k.colour, markersize=4.5)
        ax.set(yticks=range(len(labels)), yticklabels=labels, ylim=(len(labels) - 0.4, -0.6))

    def say(rows: pd.DataFrame) -> str:
        both = rows["label"].where(rows["label"] == rows["arm"], rows["label"] + " " + rows["arm"])
        names = rows["label"] if rows["label"].is_unique else both
        return extremes(rows.set_index(names)["difference"], "{:+,.0f}")

    alt = (
        f"Dots with 95 % intervals, a panel for each operation, of differences in updates to 99 % validation accuracy, "
        f"{less}, on the horizontal axis: {in_each(table, say)}"
    )
    height = (0.22 if legend else 0.18) * len(labels) + 0.5
    return panels(table, draw, alt, xlabel, legend=arms, height=height)


def share_with_band(band: pd.DataFrame, marks: list[int]) -> Picture:
    """Share of seeds above 99 % by each update, in its pointwise band, from `inference.share_band`; an arm a panel.

    `marks` are updates of which the text tells the shares, with a line at each but the last.
    """

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        update, low, high, colour = rows["update"], rows["low"], rows["high"], look(rows["schedule"].iloc[0]).colour
        ax.fill_between(update, low, high, step="post", color=colour, alpha=0.2, linewidth=0)
        curve(ax, rows, "update", "share", marked=0, drawstyle="steps-post")
        for mark in marks[:-1]:
            ax.axvline(mark, color=INK, linewidth=0.8, linestyle=":")
        ax.set_ylim(-0.04, 1.04)
        ax.yaxis.set_major_formatter("{x:.0%}")

    told = [
        f"by update {update:,} {', '.join(f'{r.schedule} {r.reached} of {r.n}' for r in rows.itertuples())}"
        for update, rows in band[band["update"].isin(marks)].groupby("update")
    ]
    alt = (
        "Step lines in a band, a panel for each arm: the share of seeds above 99 % validation accuracy on S₅ "
        f"against update. Seeds above it: {'; '.join(told)}."
    )
    return panels(band, draw, alt, "update", "share of seeds above 99 %", height=1.5, by="schedule")


def stability(members: pd.DataFrame, table: pd.DataFrame) -> Picture:
    """Share of a member's logs after its crossing that are not above 99 %: a dot a member, a bar at their mean.

    `members` as `Evidence.members` of one study and clock; those that never crossed are left out. `table` as from
    `effects.stability`.
    """
    arms, crossed = in_order(members["schedule"]), members[members["logs_after"] > 0]
    place = 0.3 * crossed.groupby(["schedule", "operation"])["seed"].rank(pct=True) - 0.15
    crossed = crossed.assign(place=crossed["schedule"].map(arms.index) + place)

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        for arm, of in crossed[crossed["operation"].isin(rows["operation"])].groupby("schedule"):
            k, y = look(arm), arms.index(arm)
            ax.scatter(of["share_below"], of["place"], 6, color=k.colour, linewidth=0, alpha=0.7)
            ax.plot([of["share_below"].mean()] * 2, [y - 0.3, y + 0.3], color=k.colour, linewidth=2)
        ax.set(yticks=range(len(arms)), yticklabels=arms, ylim=(len(arms) - 0.4, -0.6))
        ax.xaxis.set_major_formatter("{x:.0%}")

    chart = f"Dot chart of the share of later logs that are not above 99 %, {ROWS}, every seed a dot."
    alt = f"{chart} The mean: {of_cells(table[table['crossed'] > 0], 'share_below', '{:.1%}')}"
    return panels(members, draw, alt, "later logs not above 99 %", height=0.18 * len(arms) + 0.5)
