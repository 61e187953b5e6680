"""The figures of the evidence over several studies, in the style of `figures`."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from grok_utils.analysis.crossings import in_order
from grok_utils.page.figures import curve, panels, short
from grok_utils.page.style import INK, look
from grok_utils.tasks import OPERATIONS

DOUBLINGS = [32, 64, 128, 256, 512]  # batch sizes with a tick


def dose_response(table: pd.DataFrame) -> Figure:
    """RMST against dose, from `effects.dose_response`: constants on a line in its band, and the arms that change."""
    changing = in_order(table.loc[~table["constant"], "schedule"])
    with panels(in_order(table["operation"], OPERATIONS), changing) as (figure, axes):
        for operation, ax in axes.items():
            rows = table[table["operation"] == operation]
            constants = rows[rows["constant"]].sort_values("dose")
            ax.fill_between(constants["dose"], constants["low"], constants["high"], color=INK, alpha=0.2, linewidth=0)
            ax.plot(constants["dose"], constants["rmst"], color=INK, linewidth=1)
            for row in rows.to_dict("records"):
                k = look(row["schedule"])
                if not row["constant"]:
                    ax.plot([row["dose"]] * 2, [row["low"], row["high"]], color=k.colour, linewidth=1.4)
                ax.plot(row["dose"], row["rmst"], k.marker, color=k.colour, markersize=4 if row["constant"] else 6)
            ax.set_xscale("log", base=2)
            ax.set_xticks(DOUBLINGS)
            ax.xaxis.set_major_formatter(FuncFormatter(short))
            ax.yaxis.set_major_formatter(FuncFormatter(short))
            ax.set_ylim(0, 1.05 * table[["rmst", "high"]].max(axis=None))
        figure.supxlabel("mean batch size up to the crossing", fontsize=9)
        figure.supylabel("updates to 99 % (RMST)", fontsize=9)
    return figure


def forest(table: pd.DataFrame, margins: Mapping[str, float], xlabel: str, legend: bool = False) -> Figure:
    """A difference with its 95 % interval a row, an operation a panel; the band is ± the margin of equivalence.

    `table`: operation, label (the row's name), arm (gives the look), difference, low, high (NaN: no interval). Rows of
    one label share a line, one below the other. A legend names the arms that their labels do not.
    """
    labels = list(dict.fromkeys(table["label"]))
    arms = in_order(table.loc[table["label"] != table["arm"], "arm"]) if legend else []
    operations, height = in_order(table["operation"], OPERATIONS), (0.22 if legend else 0.18) * len(labels) + 0.5
    with panels(operations, arms or None, height=height) as (figure, axes):
        for operation, ax in axes.items():
            rows = table[table["operation"] == operation]
            margin = margins.get(operation, np.nan)
            if np.isfinite(margin):
                ax.axvspan(-margin, margin, color=INK, alpha=0.2, linewidth=0)
            ax.axvline(0, color=INK, linewidth=0.8)
            for row in rows.to_dict("records"):
                k = look(row["arm"])
                shift = 0.66 * arms.index(row["arm"]) / len(arms) - 0.22 if row["arm"] in arms else 0
                y = labels.index(row["label"]) + shift
                ax.plot([row["low"], row["high"]], [y, y], color=k.colour, linewidth=1.8, solid_capstyle="butt")
                ax.plot(row["difference"], y, k.marker, color=k.colour, markersize=4.5)
            ax.set_yticks(range(len(labels)), labels)
            ax.set_ylim(len(labels) - 0.4, -0.6)
            ax.xaxis.set_major_formatter(FuncFormatter(short))
        figure.supxlabel(xlabel, fontsize=9)
    return figure


def share_with_band(band: pd.DataFrame, marks: list[int]) -> Figure:
    """Share of seeds above 99 % by each update, in its pointwise band, from `inference.share_band`; an arm a panel.

    `marks` are updates to draw a line at.
    """
    arms = in_order(band["schedule"])
    with panels(arms, None, height=1.5) as (figure, axes):
        for arm, ax in axes.items():
            rows = band[band["schedule"] == arm]
            ax.fill_between(
                rows["update"], rows["low"], rows["high"], step="post", color=look(arm).colour, alpha=0.2, linewidth=0
            )
            curve(ax, rows, "update", "share", marked=0, estimator=None, drawstyle="steps-post")
            for update in marks:
                ax.axvline(update, color=INK, linewidth=0.8, linestyle=":")
            ax.set_ylim(-0.04, 1.04)
            ax.yaxis.set_major_formatter(PercentFormatter(1))
            ax.xaxis.set_major_formatter(FuncFormatter(short))
        figure.supxlabel("update", fontsize=9)
        figure.supylabel("share of seeds above 99 %", fontsize=9)
    return figure


def stability(members: pd.DataFrame) -> Figure:
    """Share of a member's logs after its crossing that are not above 99 %: a dot a member, a bar at their mean.

    `members` as `Evidence.members` of one study and clock; those that never crossed are left out.
    """
    arms, crossed = in_order(members["schedule"]), members[members["logs_after"] > 0]
    place = 0.3 * crossed.groupby(["schedule", "operation"])["seed"].rank(pct=True) - 0.15
    crossed = crossed.assign(place=crossed["schedule"].map(arms.index) + place)
    with panels(in_order(members["operation"], OPERATIONS), None, height=0.18 * len(arms) + 0.5) as (figure, axes):
        for operation, ax in axes.items():
            for arm, rows in crossed[crossed["operation"] == operation].groupby("schedule"):
                k, y = look(arm), arms.index(arm)
                ax.scatter(rows["share_below"], rows["place"], 6, color=k.colour, linewidth=0, alpha=0.7)
                ax.plot([rows["share_below"].mean()] * 2, [y - 0.3, y + 0.3], color=k.colour, linewidth=2)
            ax.set_yticks(range(len(arms)), arms)
            ax.set_ylim(len(arms) - 0.4, -0.6)
            ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        figure.supxlabel("later logs not above 99 %", fontsize=9)
    return figure
