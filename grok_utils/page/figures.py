"""Every figure of the study, drawn by seaborn over pandas frames in one style.

Functions return a matplotlib Figure that belongs to no window; `notebook.publish` saves it and shows it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from grok_utils.analysis.crossings import in_order
from grok_utils.analysis.summaries import share_by_update, summarise
from grok_utils.page.style import INK, STYLE, WIDTH, legend_handles, look
from grok_utils.schedules import BLOCK
from grok_utils.tasks import OPERATIONS

POINTS = 60  # drawn of a curve: a point every 125 of 7,500 updates
BANDED = 6  # arms
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


def short(value: float, _: Any = None) -> str:
    """An axis number in few characters: 1500 as 1.5k, 2000000 as 2M."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


@contextmanager
def panels(names: list[str], arms: Any, height: float = 2.1) -> Iterator[tuple[Figure, dict[str, Axes]]]:
    """A figure with a titled panel for each name, two in a row, and a legend of `arms` above them."""
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, height * rows * (1.0 if columns == 2 else 1.25) + 0.5), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        axes = dict(zip(names, grid.flat, strict=False))
        for spare in grid.flat[len(names) :]:
            spare.remove()
            grid[-2, 1].xaxis.set_tick_params(labelbottom=True)
        for name, ax in axes.items():
            ax.set_title(name)
        if arms is not None:
            figure.legend(handles=legend_handles(arms), loc="outside upper center", ncols=3, handlelength=3.2)
        yield figure, axes
        for ax in axes.values():
            ax.set(xlabel="", ylabel="")


def curve(ax: Axes, frame: pd.DataFrame, x: str, y: str, marked: int = 10, **options: Any) -> None:
    """One line an arm, in the arm's own look, with a marker on one in `marked` points (0: none)."""
    looks = {arm: look(arm) for arm in in_order(frame["schedule"])}
    seaborn.lineplot(
        frame,
        x=x,
        y=y,
        hue="schedule",
        style="schedule",
        hue_order=list(looks),
        style_order=list(looks),
        palette={arm: k.colour for arm, k in looks.items()},
        dashes={arm: k.dashes or "" for arm, k in looks.items()},
        markers={arm: k.marker for arm, k in looks.items()},
        markersize=4 if marked else 0,
        markeredgewidth=0,
        markevery=(marked // 2, max(1, marked)),
        legend=False,
        ax=ax,
        **options,
    )


def curves(ax: Axes, frame: pd.DataFrame, x: str, measure: str) -> None:
    """`val_…` of each arm, median over seeds; of few arms with a band from lowest to highest, and `train_…` thin."""
    if few_arms(frame):
        thin_line = {"errorbar": None, "linewidth": 0.6, "alpha": 0.6}
        curve(ax, frame, x, f"train_{measure}", marked=0, estimator="median", **thin_line)
        band = {"errorbar": SPREAD, "err_kws": {"alpha": 0.15, "linewidth": 0}}
    curve(ax, frame, x, f"val_{measure}", estimator="median", **(band if few_arms(frame) else {"errorbar": None}))


def few_arms(frame: pd.DataFrame) -> bool:
    """Whether the arms are few enough for bands and training lines to be told apart."""
    return frame["schedule"].nunique() <= BANDED


def curves_show(frame: pd.DataFrame) -> str:
    """What the curves are, for a caption."""
    return "median over seeds" + (", band from lowest to highest. Thin: training." if few_arms(frame) else ".")


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

    return by_operation(thin(frame), draw, against, "val_accuracy")


def loss_curves(frame: pd.DataFrame) -> Figure:
    """Validation loss of each arm on a logarithmic scale, as in `learning_curves`."""

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        curves(ax, rows, "update", "loss")
        ax.set_yscale("log")

    return by_operation(thin(frame), draw, "update", "val_loss")


def share_grokked(members: pd.DataFrame) -> Figure:
    """Share of each arm's seeds above 99 % by each update, from the rows of `statistics.crossings`."""

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        curve(ax, rows, "update", "share", marked=1, estimator=None, drawstyle="steps-post")
        ax.set_ylim(-0.04, 1.04)
        ax.yaxis.set_major_formatter(PercentFormatter(1))

    return by_operation(share_by_update(members), draw, "update", "share")


def updates_to_99(members: pd.DataFrame) -> Figure:
    """RMST of each arm with its 95 % interval and every seed beside it, from the rows of `statistics.crossings`.

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


def scaling(table: pd.DataFrame) -> Figure:
    """Seconds of training a member against the members in a stack, from the rows of `bench_cuda.time_members`."""
    with panels([""], None, height=2.2) as (figure, axes):
        ax = axes[""]
        seaborn.lineplot(
            table, x="members", y="s_a_member", marker="o", markersize=6, color=look("linear").colour, ax=ax
        )
        ax.set(xscale="log", ylim=(0, None))
        ax.set_xticks(table["members"], [str(n) for n in table["members"]])
        ax.minorticks_off()
        figure.supxlabel("members in a stack", fontsize=9)
        figure.supylabel("seconds of training a member", fontsize=9)
    return figure
