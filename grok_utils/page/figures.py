"""Every figure of the study, drawn from pandas frames in one style.

`notebook.publish` saves them and shows them.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import product

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from grok_utils.analysis.crossings import GROUP, ended_early, in_order, measured, while_all_train
from grok_utils.analysis.inference import share_band
from grok_utils.analysis.measured import over_decades
from grok_utils.analysis.summaries import over_two_settings, summarise
from grok_utils.page.descriptions import PANELS, ROWS, courses, extremes, in_each, of_cells
from grok_utils.page.style import INK, STYLE, WIDTH, Picture, curve, look, panels
from grok_utils.schedules import BLOCK
from grok_utils.studies import THRESHOLD
from grok_utils.tasks import OPERATIONS, written

POINTS = 60  # drawn of a curve: a point every 125 of 7,500 updates
BANDED = 6  # arms
CELL_COLOURS = matplotlib.colormaps["viridis_r"].resampled(32)  # from 50 on a colour bar is no longer drawn in lines
CELL_WORDS = 0.062  # inches that a digit of 7 points takes


def thin(frame: pd.DataFrame, points: int = POINTS) -> pd.DataFrame:
    """The rows of about `points` evenly spaced updates, the last among them: a drawing needs no more."""
    updates = np.sort(frame["update"].unique())
    return frame[frame["update"].isin(updates[:: -max(1, -(-len(updates) // points))])]


def few_arms(frame: pd.DataFrame) -> bool:
    """Whether the arms are few enough for bands and training lines to be told apart."""
    return frame["schedule"].nunique() <= BANDED


def curves_show(frame: pd.DataFrame) -> str:
    """What the curves are, for a caption."""
    return "median over seeds" + (", band from lowest to highest. Thin: training." if few_arms(frame) else ".")


def curves(ax: Axes, frame: pd.DataFrame, x: str, measure: str) -> None:
    """`val_…` of each arm, median over seeds; of few arms with a band from lowest to highest, and `train_…` thin.

    Losses have a logarithmic axis, accuracies one in per cent.
    """
    few = few_arms(frame)
    if few:
        train = thin(measured(frame, f"train_{measure}"))
        curve(ax, train, x, f"train_{measure}", marked=0, middle="median", linewidth=0.6, alpha=0.6)
    curve(ax, thin(measured(frame, f"val_{measure}")), x, f"val_{measure}", middle="median", band=few)
    if measure == "loss":
        ax.set_yscale("log")
    else:
        ax.yaxis.set_major_formatter(PercentFormatter(1))


def scale_of(values: pd.Series) -> str:
    """The axis of a measure: linear, or over decades log, and symlog where not all of its `values` are positive."""
    if not over_decades(values):
        return "linear"
    return "symlog" if (values <= 0).any() else "log"


def means_show(course: pd.DataFrame, column: str) -> str:
    """What the curves of `measure` are, for a caption."""
    scale = scale_of(course[column])
    banded = "seed" in course and few_arms(course) and scale == "linear"
    band = " Band: from the lowest seed to the highest." if banded else ""
    signed = " Around zero the axis is linear." if scale == "symlog" else ""
    gaps = " Gaps: what it would be divided by is not positive." if course[column].isna().any() else ""
    return f"mean over seeds and over the logs since the last point.{band}{signed}{gaps}"


def schedules(sizes: Mapping[str, np.ndarray]) -> Picture:
    """Batch size against update of each arm: `sizes` holds the batch size of each block of 10 updates."""
    of_arms = {arm: pd.Series(size, BLOCK * np.arange(1, len(size) + 1)) for arm, size in sizes.items()}
    frame = pd.concat(of_arms, names=["schedule", "update"]).reset_index(name="batch_size").assign(operation="")

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        curve(ax, thin(rows, points=150), "update", "batch_size", marked=25)
        ax.set_ylim(bottom=0)

    alt = f"Line chart of batch size against update, a line for each arm: {courses(sizes)}"
    return panels(frame, draw, alt, "update", "batch size", in_order(sizes), height=2.2)


def learning_curves(frame: pd.DataFrame, against: str = "update") -> Picture:
    """Validation accuracy of each arm, an operation a panel, as `curves_show` says.

    `against` is `update` or `examples_seen`; the text says where on it the median over seeds first exceeds 99 %.
    """
    axis = against.replace("_", " ")
    ended = " before a run ended" if ended_early(frame).any() else ""
    frame = while_all_train(frame)

    def say(rows: pd.DataFrame) -> str:
        median = rows.groupby(["schedule", against])["val_accuracy"].median().reset_index()
        first = median[median["val_accuracy"] > THRESHOLD].groupby("schedule")[against].min()
        never = [arm for arm in in_order(rows["schedule"]) if arm not in first]
        told = [extremes(first)] if len(first) else []
        return ", ".join(told + ([f"never{ended} ({', '.join(never)})"] if never else []))

    chart, times = f"Line charts of validation accuracy against {axis}, {PANELS}.", axis.replace("update", "updates")
    alt = f"{chart} The median over seeds exceeds 99 % at these {times}: {in_each(frame, say)}"
    draw = partial(curves, x=against, measure="accuracy")
    return panels(frame, draw, alt, axis, "validation accuracy", in_order(frame["schedule"]))


def loss_curves(frame: pd.DataFrame) -> Picture:
    """Validation loss of each arm on a logarithmic scale, as in `learning_curves`."""
    frame = while_all_train(frame)

    def say(rows: pd.DataFrame) -> str:
        median = rows.groupby(["update", "schedule"])["val_loss"].median()
        highest = f"up to {median[np.isfinite(median)].max():.2g}, " if np.isfinite(median).any() else ""
        return f"{highest}at the end {extremes(median.loc[rows['update'].max()], '{:.2g}')}"

    chart = f"Line charts of validation loss, on a logarithmic scale, against update, {PANELS}."
    alt = f"{chart} The median over seeds: {in_each(frame, say)}"
    draw = partial(curves, x="update", measure="loss")
    return panels(frame, draw, alt, "update", "validation loss", in_order(frame["schedule"]))


def measure(course: pd.DataFrame, column: str) -> Picture:
    """A measure's means over seeds, of few arms with a band, an operation a panel, from `measured.course`.

    Over decades the axis is logarithmic, without bands, and linear around zero if it is not positive throughout. A line
    has a gap where its mean is not known.
    """
    points, scale, sizes = np.sort(course["update"].unique()), scale_of(course[column]), course[column].abs()
    band = few_arms(course) and scale == "linear"
    around_zero = {"linthresh": 10 ** np.ceil(np.log10(sizes[sizes > 0].quantile(0.1)))} if scale == "symlog" else {}

    def draw(ax: Axes, of: pd.DataFrame) -> None:
        curve(ax, of, "update", column, middle="mean", band=band, points=points)
        ax.set(xlim=(0, 1.03 * points[-1]))  # whatever has a value
        ax.set_yscale(scale, **around_zero)

    def say(rows: pd.DataFrame) -> str:
        means = rows.groupby(["update", "schedule"])[column].mean()
        first, last = (extremes(means.loc[update], "{:.3g}") for update in means.index[[0, -1]].get_level_values(0))
        return f"at first {first}, at the end {last}"

    words = column.replace("_", " ")
    alt = f"Line charts of {words} against update, {PANELS}. The mean over seeds: {in_each(course, say)}"
    return panels(course, draw, alt, "update", words, in_order(course["schedule"]))


def before_the_touch(course: pd.DataFrame, gaps: pd.DataFrame) -> Picture:
    """Each measure beside validation accuracy up to the touch and a little beyond, a panel each operation and arm.

    `course` as from `moves.aligned`, `gaps` from `moves.gaps`. Solid line: the touch; dotted: memorisation, by the
    medians of the two.
    """
    memorised = (gaps["memorised_at"] / gaps["touch_at"]).rename("memorised")
    table = course.merge(gaps[GROUP].join(memorised), on=GROUP)
    points = np.sort(table["share"].unique())
    panel, words = table["operation"].map(written) + ", " + table["schedule"], table["measure"].str.replace("_", " ")
    table = table.assign(operation=panel, schedule=words)  # a panel's name and a line's

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        curve(ax, rows, "share", "level", points=points)
        ax.axvline(1, color=INK, linewidth=0.8)
        ax.axvline(rows["memorised"].iloc[0], color=INK, linewidth=0.8, linestyle=":")

    def say(rows: pd.DataFrame) -> str:
        of = rows[rows["share"] <= 1].groupby("schedule").agg({"share": "last", "level": ["first", "last"]})
        until = (f", known until {share:.2f} of it" if share < 1 else "" for share in of["share", "last"])
        told = zip(of.index, of["level", "first"], of["level", "last"], until, strict=True)
        return "; ".join(f"{name} from {a:.2f} to {b:.2f}{known}" for name, a, b, known in told)

    alt = (
        "Line charts of each measure's level against the share of the touch, a panel for each operation and arm, a "
        f"line for each measure. From the first log to the touch: {in_each(table, say)}"
    )
    legend = list(dict.fromkeys(table["schedule"]))
    return panels(table, draw, alt, "update, in shares of the touch", "level, least to greatest", legend)


def share_grokked(members: pd.DataFrame) -> Picture:
    """Share of each arm's seeds above 99 % by each update, from the rows of `crossings.crossings`."""

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        curve(ax, rows, "update", "share", marked=1, drawstyle="steps-post")
        ax.set_ylim(-0.04, 1.04)
        ax.yaxis.set_major_formatter(PercentFormatter(1))

    chart = f"Step lines of the share of seeds above 99 % validation accuracy against update, {PANELS}."
    alt = f"{chart} At the last update: {of_cells(summarise(members), 'share', '{:.0%}')}"
    return panels(share_band(members), draw, alt, "update", "share of seeds above 99 %", in_order(members["schedule"]))


def updates_to_99(members: pd.DataFrame) -> Picture:
    """RMST of each arm with its 95 % interval and every seed beside it, from the rows of `crossings.crossings`.

    A seed that reached 99 % is a dot at its update; one that did not is an open triangle at the horizon.
    """
    arms = in_order(members["schedule"])
    cells = summarise(members)
    members = members.assign(arm=members["schedule"].map(arms.index))
    # Seeds side by side below their arm's mean, in order of seed, not jittered: the same data, the same picture.
    members["place"] = members["arm"] + 0.12 + 0.3 * members.groupby(["schedule", "operation"])["seed"].rank(pct=True)

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        for _, cell in cells[cells["operation"].isin(rows["operation"])].iterrows():
            k, y = look(cell["schedule"]), arms.index(cell["schedule"])
            ax.plot([cell["rmst_low"], cell["rmst_high"]], [y, y], color=k.colour, linewidth=2.2, solid_capstyle="butt")
            ax.plot(cell["rmst"], y, k.marker, color=k.colour, markersize=6)
        colours = {arm: look(arm).colour for arm in arms}
        seen, never = rows[rows["reached"]], rows[~rows["reached"]]
        ax.scatter(seen["updates"], seen["place"], 12, color=seen["schedule"].map(colours), linewidth=0, zorder=3)
        ax.scatter(never["horizon"], never["place"], 18, marker=">", fc="none", ec=never["schedule"].map(colours))
        ax.set(yticks=range(len(arms)), yticklabels=arms, ylim=(len(arms) - 0.4, -0.5))
        ax.set(xlim=(0, 1.04 * members["horizon"].max()))
        ax.axvline(members["horizon"].max(), color=INK, linewidth=0.8, linestyle=":")

    chart = f"Dot chart of updates to 99 % validation accuracy, {ROWS}, every seed a small dot."
    alt = f"{chart} The restricted mean, with its interval: {of_cells(cells, 'rmst')}"
    return panels(members, draw, alt, "updates to 99 % validation accuracy", height=0.34 * len(arms) + 0.5)


def rmst_by_cell(cells: pd.DataFrame) -> Picture:
    """RMST in each cell of a grid over two settings, a row of panels an arm, from the rows of `summaries.summarise`.

    × marks a cell in which no seed reached 99 %; one that an arm lacks is blank. See `over_two_settings`.
    """
    table, settings = over_two_settings(cells)
    never = (table["reached"] == 0).sum()

    def say(rows: pd.DataFrame) -> str:
        of_arms = rows.set_index("cell").groupby("schedule", sort=False)["rmst"]
        return ", ".join(f"{arm} {extremes(values)}" for arm, values in of_arms)

    alt = (
        f"Heat maps of restricted mean updates to 99 % validation accuracy, {ROWS}, over "
        f"{' and '.join(settings[:2]).replace('_', ' ')}. No seed reached 99 % in {never} of {len(table)} cells. "
        f"The cells: {in_each(table, say)}"
    )
    down, *across = sorted(settings[:2], key=lambda name: -table[name].nunique())  # a page is higher than wide
    table["row"], rows = places(table[down])
    table["column"], columns = places(table[across[0]]) if across else (0, [""])
    arms, operations = in_order(table["schedule"]), in_order(table["operation"], OPERATIONS)
    width = min(4, len(operations))
    each = -(-len(operations) // width)  # rows of panels that an arm takes
    colours = matplotlib.cm.ScalarMappable(Normalize(table["rmst"].min(), table["rmst"].max()), CELL_COLOURS)
    fits = CELL_WORDS * len(f"{table['rmst'].max():.0f}0") <= (WIDTH - 0.9) / width / len(columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure((WIDTH, len(arms) * each * (0.17 * len(rows) + 0.32) + 1.1), layout="constrained")
        grid = figure.subplots(len(arms) * each, width, sharex=True, sharey=True, squeeze=False)
        of_arms = grid.reshape(len(arms), -1)
        for (i, arm), (j, operation) in product(enumerate(arms), enumerate(operations)):
            ax = of_arms[i, j]
            of = table[(table["schedule"] == arm) & (table["operation"] == operation)]
            texts = ["×" if c.reached == 0 else f"{c.rmst:.0f}" if fits else "" for c in of.itertuples()]
            draw_cells(ax, of["column"], of["row"], colours.to_rgba(of["rmst"]), texts)
            ax.set_title(f"{written(operation)}\n" if i == 0 or each > 1 else "")
            ax.set_title("" if j % width else arm, loc="left")
        for ax in grid.flat:
            ax.set(xticks=range(len(columns)), xticklabels=columns, xlim=(-0.5, len(columns) - 0.5))
            ax.set(yticks=range(len(rows)), yticklabels=rows, ylim=(len(rows) - 0.5, -0.5))
            ax.tick_params(length=0)
            ax.grid(False)
            ax.spines[:].set_visible(False)
        figure.colorbar(colours, ax=grid, location="top", aspect=50, pad=0.02, label="updates to 99 % (RMST)")
        figure.supxlabel(across[0].replace("_", " ") if across else "")
        figure.supylabel(down.replace("_", " "))
    return Picture(figure, alt)


def places(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """The place of each value along an axis, by size, and the labels there; last where the setting is an arm's own."""
    codes, distinct = pd.factorize(values, sort=True, use_na_sentinel=False)
    return codes, ["own" if np.isnan(value) else f"{value:g}" for value in distinct]


def draw_cells(ax: Axes, columns: pd.Series, rows: pd.Series, colours: np.ndarray, texts: Iterable[str] = ()) -> None:
    """Cells of a grid in their colours, with texts whose contrast is 4.5 or more; of a colour that is clear, in INK."""
    ax.bar(columns, 1, 1, rows - 0.5, color=colours, edgecolor=INK, linewidth=0.5)
    for column, row, colour, text in zip(columns, rows, colours, texts, strict=False):
        ink = ("black" if seaborn.utils.relative_luminance(colour) > 0.179 else "white") if colour[3] else INK
        ax.text(column, row, text, color=ink, fontsize=8.25, ha="center", va="center_baseline")
