"""The figures of the tuned answer, in the style of `page.figures`."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator

from grok_utils.page.descriptions import extremes, in_each
from grok_utils.page.style import INK, LOOKS, Look, Picture, panels, short
from grok_utils.tuned_page.answer import KINDS, SETTINGS

COLOURS = dict(zip(SETTINGS, (INK, LOOKS["linear"].colour), strict=True))
SIZES = (32, 128, 512, 2048)  # batch sizes with a tick
MARKERS = dict(zip(KINDS, "o^Dvs", strict=True))
TIMES = (100, 200, 500, 1000, 2000, 5000)  # updates with a tick


def log_axes(ax: Axes) -> None:
    """Batch size against updates, both logarithmic."""
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(SIZES)
    ax.set_yticks(TIMES)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(short))


def updates_against_batch(table: pd.DataFrame) -> Picture:
    """Updates to 99 % against batch size at either setting, from `answer.points`: constants joined, schedules beside
    them."""

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        for setting, colour in COLOURS.items():
            of = rows[rows["setting"] == setting]
            line = of[of["kind"] == "constant"].sort_values("batch")
            ax.plot(line["batch"], line["rmst"], color=colour, linewidth=1.2)
            ax.vlines(of["batch"], of["low"], of["high"], color=colour, linewidth=1, alpha=0.7)
            for kind, marker in MARKERS.items():
                at = of[of["kind"] == kind]
                size = 3.5 if kind == "constant" else 4.5
                ax.plot(at["batch"], at["rmst"], marker, color=colour, markersize=size, alpha=0.9, linewidth=0)
        log_axes(ax)

    def say(rows: pd.DataFrame) -> str:
        told = []
        for setting in SETTINGS:
            constants = rows[(rows["setting"] == setting) & (rows["kind"] == "constant")]
            if len(constants):
                told.append(f"{setting} {extremes(constants.set_index('schedule')['rmst'])}")
        return ", ".join(told)

    alt = (
        "Updates to 99 % validation accuracy against mean batch size, both logarithmic, a panel for each operation: a "
        "line of constant batches at the original's rate and decay, another with both tuned, schedules as points. "
        f"Restricted means of the constants: {in_each(table, say)}"
    )
    looks = {f"{setting}, constant": Look(colour, "o") for setting, colour in COLOURS.items()}
    looks |= {kind: Look(INK, MARKERS[kind], None) for kind in KINDS[1:] if (table["kind"] == kind).any()}
    return panels(table, draw, alt, "mean batch size up to the touch", "updates to 99 % (RMST)", looks)
