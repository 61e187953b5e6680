"""Every figure of the study, drawn by seaborn over pandas frames in one style.

Functions return a matplotlib Figure that belongs to no window; `notebook.publish` saves it and shows it.
"""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from grok_utils.analysis.crossings import in_order, measured
from grok_utils.analysis.summaries import over_two_settings, share_by_update, summarise
from grok_utils.page.style import INK, STYLE, WIDTH, curve, look, panels, short
from grok_utils.schedules import BLOCK
from grok_utils.tasks import OPERATIONS

POINTS = 60  # drawn of a curve: a point every 125 of 7,500 updates
BANDED = 6  # arms
CELL_COLOURS = matplotlib.colormaps["viridis_r"].resampled(32)  # from 50 on a colour bar is no longer drawn in lines
CELL_WORDS = 0.062  # inches that a digit of 7 points takes
SPREAD = ("pi", 100)  # the band of a curve: from the lowest seed to the highest
WORDS = {
    "update": "update",
    "examples_seen": "examples seen",
    "batch_size": "batch size",
    "val_accuracy": "validation accuracy",
    "val_loss": "validation loss",
    "share": "share of seeds above 99 %",
}


def thin(frame: pd.DataFrame, points: int = POINTS) -> pd.DataFrame:
    """The rows of about `points` evenly spaced updates, the last among them: a drawing needs no more."""
    updates = np.sort(frame["update"].unique())
    kept = updates[:: -max(1, -(-len(updates) // points))]
    return frame[frame["update"].isin(kept)]


def curves(ax: Axes, frame: pd.DataFrame, x: str, measure: str) -> None:
    """`val_…` of each arm, median over seeds; of few arms with a band from lowest to highest, and `train_…` thin."""
    if few_arms(frame):
        thin_line = {"errorbar": None, "linewidth": 0.6, "alpha": 0.6}
        train = thin(measured(frame, f"train_{measure}"))
        curve(ax, train, x, f"train_{measure}", marked=0, estimator="median", **thin_line)
        band = {"errorbar": SPREAD, "err_kws": {"alpha": 0.15, "linewidth": 0}}
    rows = thin(measured(frame, f"val_{measure}"))
    curve(ax, rows, x, f"val_{measure}", estimator="median", **(band if few_arms(frame) else {"errorbar": None}))


def few_arms(frame: pd.DataFrame) -> bool:
    """Whether the arms are few enough for bands and training lines to be told apart."""
    return frame["schedule"].nunique() <= BANDED


def curves_show(frame: pd.DataFrame) -> str:
    """What the curves are, for a caption."""
    return "median over seeds" + (", band from lowest to highest. Thin: training." if few_arms(frame) else ".")


def means_show(course: pd.DataFrame, column: str) -> str:
    """What the curves of `measure` are, for a caption."""
    banded = "seed" in course and few_arms(course) and not over_decades(course, column)
    band = " Band: from the lowest seed to the highest." if banded else ""
    gaps = " Gaps: not positive." if over_decades(course, column) else ""
    return f"mean over seeds and over the logs since the last point.{band}{gaps}"


def over_decades(course: pd.DataFrame, column: str) -> bool:
    """Whether the positive values of a measure span more than two decades."""
    positive = course.loc[course[column] > 0, column]
    return len(positive) > 0 and positive.max() > 100 * positive.min()


def by_operation(frame: pd.DataFrame, draw: Callable[[Axes, pd.DataFrame], None], x: str, y: str) -> Figure:
    """A panel for each operation, drawn by `draw(ax, the operation's rows)`, with shared axes called `x` and `y`."""
    with panels(in_order(frame["operation"], OPERATIONS), in_order(frame["schedule"])) as (figure, axes):
        for operation, ax in axes.items():
            draw(ax, frame[frame["operation"] == operation])
            ax.xaxis.set_major_formatter(FuncFormatter(short))
        figure.supxlabel(WORDS.get(x, x), fontsize=9)
        figure.supylabel(WORDS.get(y, y), fontsize=9)
    return figure


def schedules(sizes: Mapping[str, np.ndarray]) -> Figure:
    """Batch size against update of each arm: `sizes` holds the batch size of each block of 10 updates."""
    frames = [
        pd.DataFrame({"schedule": a, "update": BLOCK * np.arange(1, len(s) + 1), "batch_size": s})
        for a, s in sizes.items()
    ]
    frame = thin(pd.concat(frames), points=150)
    with panels([""], in_order(sizes), height=2.2) as (figure, axes):
        curve(axes[""], frame, "update", "batch_size", marked=25)
        axes[""].set_ylim(bottom=0)
        axes[""].xaxis.set_major_formatter(FuncFormatter(short))
        figure.supxlabel("update", fontsize=9)
        figure.supylabel("batch size", fontsize=9)
    return figure


def learning_curves(frame: pd.DataFrame, against: str = "update") -> Figure:
    """Validation accuracy of each arm, an operation a panel, as `curves_show` says.

    `against` is `update` or `examples_seen`.
    """

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        curves(ax, rows, against, "accuracy")
        ax.yaxis.set_major_formatter(PercentFormatter(1))

    return by_operation(frame, draw, against, "val_accuracy")


def loss_curves(frame: pd.DataFrame) -> Figure:
    """Validation loss of each arm on a logarithmic scale, as in `learning_curves`."""

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        curves(ax, rows, "update", "loss")
        ax.set_yscale("log")

    return by_operation(frame, draw, "update", "val_loss")


def measure(course: pd.DataFrame, column: str) -> Figure:
    """A measure's means over seeds, of few arms with a band, an operation a panel, from `measured.course`.

    Over decades the axis is logarithmic, without bands. A line has a gap where its mean is not known or, on such an
    axis, not positive.
    """
    points, logarithmic = np.sort(course["update"].unique()), over_decades(course, column)
    band: dict[str, Any] = {"errorbar": None}
    if few_arms(course) and not logarithmic:
        band = {"errorbar": SPREAD, "err_kws": {"alpha": 0.15, "linewidth": 0}}

    def draw(ax: Axes, of: pd.DataFrame) -> None:
        curve(ax, of, "update", column, estimator="mean", **band)
        for line in ax.lines:
            mean = pd.Series(line.get_ydata(), line.get_xdata()).reindex(points)
            line.set_data(points, mean.where(mean > 0) if logarithmic else mean)
        ax.set_yscale("log" if logarithmic else "linear")

    return by_operation(course, draw, "update", column.replace("_", " "))


def share_grokked(members: pd.DataFrame) -> Figure:
    """Share of each arm's seeds above 99 % by each update, from the rows of `crossings.crossings`."""

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        curve(ax, rows, "update", "share", marked=1, estimator=None, drawstyle="steps-post")
        ax.set_ylim(-0.04, 1.04)
        ax.yaxis.set_major_formatter(PercentFormatter(1))

    return by_operation(share_by_update(members), draw, "update", "share")


def updates_to_99(members: pd.DataFrame) -> Figure:
    """RMST of each arm with its 95 % interval and every seed beside it, from the rows of `crossings.crossings`.

    A seed that reached 99 % is a dot at its update; one that did not is an open triangle at the horizon.
    """
    arms = in_order(members["schedule"])
    cells = summarise(members)
    members = members.assign(arm=members["schedule"].map(arms.index))
    # Seeds side by side below their arm's mean, in order of seed, not jittered: the same data, the same picture.
    members["place"] = members["arm"] + 0.12 + 0.3 * members.groupby(["schedule", "operation"])["seed"].rank(pct=True)
    with panels(in_order(members["operation"], OPERATIONS), None, height=0.34 * len(arms) + 0.5) as (figure, axes):
        for operation, ax in axes.items():
            for _, cell in cells[cells["operation"] == operation].iterrows():
                draw_mean(ax, arms.index(cell["schedule"]), cell)
            rows = members[members["operation"] == operation]
            colours = {arm: look(arm).colour for arm in arms}
            seen, never = rows[rows["reached"]], rows[~rows["reached"]]
            ax.scatter(seen["updates"], seen["place"], 12, color=seen["schedule"].map(colours), linewidth=0, zorder=3)
            ax.scatter(never["horizon"], never["place"], 18, marker=">", fc="none", ec=never["schedule"].map(colours))
            ax.set_yticks(range(len(arms)), arms)
            ax.set_ylim(len(arms) - 0.4, -0.5)
            ax.set_xlim(0, 1.04 * members["horizon"].max())
            ax.axvline(members["horizon"].max(), color=INK, linewidth=0.8, linestyle=":")
            ax.xaxis.set_major_formatter(FuncFormatter(short))
        figure.supxlabel("updates to 99 % validation accuracy", fontsize=9)
    return figure


def draw_mean(ax: Axes, y: float, cell: pd.Series) -> None:
    """The arm's RMST at height `y`, with its interval where there is one."""
    k = look(cell["schedule"])
    ax.plot([cell["rmst_low"], cell["rmst_high"]], [y, y], color=k.colour, linewidth=2.2, solid_capstyle="butt")
    ax.plot(cell["rmst"], y, k.marker, color=k.colour, markersize=6)


def rmst_by_cell(cells: pd.DataFrame) -> Figure:
    """RMST in each cell of a grid over two settings, a row of panels an arm, from the rows of `summaries.summarise`.

    × marks a cell in which no seed reached 99 %; one that an arm lacks is blank. See `over_two_settings`.
    """
    table, settings = over_two_settings(cells)
    down, *across = sorted(settings[:2], key=lambda name: -table[name].nunique())  # a page is higher than wide
    table["row"], rows = places(table[down])
    table["column"], columns = places(table[across[0]]) if across else (0, [""])
    arms, operations = in_order(table["schedule"]), in_order(table["operation"], OPERATIONS)
    width = min(4, len(operations))
    each = -(-len(operations) // width)  # rows of panels that an arm takes
    colours = matplotlib.cm.ScalarMappable(Normalize(table["rmst"].min(), table["rmst"].max()), CELL_COLOURS)
    fits = CELL_WORDS * len(f"{table['rmst'].max():.0f}0") <= (WIDTH - 0.9) / width / len(columns)
    with matplotlib.rc_context(STYLE):
        height = len(arms) * each * (0.17 * len(rows) + 0.32) + 1.1
        figure = Figure((WIDTH, height), layout="constrained")
        grid = figure.subplots(len(arms) * each, width, sharex=True, sharey=True, squeeze=False)
        for i, (arm, operation) in enumerate(product(arms, operations)):
            line, place = divmod(i % len(operations), width)
            ax = grid[i // len(operations) * each + line, place]
            of = table[(table["schedule"] == arm) & (table["operation"] == operation)]
            draw_cells(ax, of, colours.to_rgba(of["rmst"]), fits)
            ax.set_title(f"{operation}\n" if i < len(operations) or each > 1 else "")
            ax.set_title("" if place else arm, loc="left")
        for ax in grid.flat:
            ax.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
            ax.set_xticks(range(len(columns)), columns)
            ax.set_yticks(range(len(rows)), rows)
            ax.tick_params(length=0)
            ax.grid(False)
            ax.spines[:].set_visible(False)
        figure.colorbar(colours, ax=grid, location="top", aspect=50, pad=0.02, label="updates to 99 % (RMST)")
        figure.supxlabel(across[0].replace("_", " ") if across else "", fontsize=9)
        figure.supylabel(down.replace("_", " "), fontsize=9)
    return figure


def places(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """The place of each value along an axis, by size, and the labels there; last where the setting is an arm's own."""
    codes, distinct = pd.factorize(values, sort=True, use_na_sentinel=False)
    return codes, ["own" if np.isnan(value) else f"{value:g}" for value in distinct]


def draw_cells(ax: Axes, cells: pd.DataFrame, colours: np.ndarray, numbers: bool) -> None:
    """The cells of one arm on one operation in their colours, with their RMST where there is room for `numbers`."""
    ax.bar(cells["column"], 1, 1, cells["row"] - 0.5, color=colours, edgecolor=INK, linewidth=0.5)
    for cell, colour in zip(cells.itertuples(), colours, strict=True):
        text = "×" if cell.reached == 0 else f"{cell.rmst:.0f}" if numbers else ""
        ink = "black" if seaborn.utils.relative_luminance(colour) > 0.179 else "white"  # whose contrast is 4.5 or more
        ax.text(cell.column, cell.row, text, color=ink, fontsize=7, ha="center", va="center_baseline")
