"""One style for every figure: size, type, panels, one look per arm, and SVG legible on light and dark ground."""

import io
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from grok_utils.analysis.crossings import ARMS, in_order
from grok_utils.tasks import OPERATIONS, written

WIDTH = 4.8  # inches: type of 9 points stays readable where a phone shows the figure 360 pixels wide
THIRD = 18  # letters of a legend's word that a third of this holds
WIDE = 7.2  # as a page's column: a phone shows a part of it, and scrolls
OURS = matplotlib.rc_params_from_file(Path(__file__).with_name("figures.mplstyle"), use_default_template=False)
MARKED = 10  # of so many points of a curve one has a marker
STYLE: dict[Any, Any] = seaborn.axes_style("ticks") | OURS
INK, INK_ON_DARK = OURS["text.color"], "#c9d1d9"  # axes and words

LINES = "svg.plot *{stroke-linejoin:round;stroke-linecap:butt}"
# Words in a figure of a page take the ground of that page.
CSS = f"""{LINES}
@media screen and (prefers-color-scheme:dark){{
svg.plot [style*="fill: {INK}"]{{fill:{INK_ON_DARK}!important}}
svg.plot [style*="stroke: {INK}"]{{stroke:{INK_ON_DARK}!important}}}}"""


class Look(NamedTuple):
    """How an arm is drawn, everywhere: colour, marker and line style, as matplotlib has them."""

    colour: str
    marker: str
    line: Any = "-"  # solid; dashes are (0, (on, off, …))


# A row of the table an arm. Every colour has a contrast of 3 on white and on near-black. The first six, near Okabe and
# Ito's, and OTHERS were searched for the largest least distance between any two, as seen with and without each kind of
# colour blindness. Constants are solid. At another length a schedule keeps its colour: 14 that all differ do not exist.
LOOKS = {
    row.arm: Look(row.colour, row.marker, (0, tuple(map(float, row.dashes.split()))) if row.dashes else "-")
    for row in pd.read_csv(Path(__file__).with_name("looks.csv"), keep_default_na=False).itertuples()
}
OTHERS = ("#126c6c", "#5a78d8", "#7e8afc", "#9600fc", "#8a42a2", "#9c60a8", "#ba1e5a")
MARKERS = "<>hXpd*"
# Measures in one panel, which no arm is in.
TOGETHER = ("val accuracy", "weight norm", "gradient trace", "fourier concentration", "noise scale")
OF_MEASURES = dict(zip(TOGETHER, LOOKS.values(), strict=False))


def look(arm: str) -> Look:
    """The arm's look; one of another name gets one of the other colours, a marker and dashes by its name alone."""
    if known := LOOKS.get(arm) or OF_MEASURES.get(arm):
        return known
    n = zlib.crc32(arm.encode())
    return Look(OTHERS[n % 7], MARKERS[n // 7 % 7], (0, (1 + n // 49 % 5, 1 + n // 245 % 2)))


def short(value: float, _: Any = None) -> str:
    """An axis number in few characters: 1500 as 1.5k, 2000000 as 2M."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


class Picture(NamedTuple):
    """A figure that belongs to no window, and its alternative text: first its axes, then what is to be seen on them."""

    figure: Figure
    alt: str


def panels(
    frame: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame], None],
    alt: str,
    x: str,
    y: str = "",
    legend: Iterable[str] | Mapping[str, Look] = (),
    height: float = 2.1,
    by: str = "operation",
    columns: int = 2,
    width: float = WIDTH,
    sharey: bool | Literal["row"] = True,
) -> Picture:
    """A titled panel for each operation (or arm, or whatever `by` names), drawn by `draw(ax, its rows)`.

    There are `columns` in a row, in a figure of `width` inches. `sharey` as in matplotlib's subplots.

    Panels share their axes, called `x` (of numbers that may be large) and `y`. A legend, of arms or of names with
    their looks, is above them.
    """
    names = in_order(frame[by], OPERATIONS if by == "operation" else ARMS)
    columns = min(columns, len(names))
    rows = -(-len(names) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure((width, height * rows * (1.25 if columns == 1 else 1.0) + 0.5), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, sharey=sharey, squeeze=False)
        for column, spare in enumerate(grid.flat[len(names) :], start=len(names) % columns):
            spare.remove()
            grid[-2, column].xaxis.set_tick_params(labelbottom=True)
        for name, ax in zip(names, grid.flat, strict=False):
            ax.set_title(written(name) if by == "operation" else name)
            ax.xaxis.set_major_formatter(short)
            draw(ax, frame[frame[by] == name])
            ax.set(xlabel="", ylabel="")
        looks = legend if isinstance(legend, Mapping) else {arm: look(arm) for arm in legend}
        if looks:
            handles = [Line2D([], [], color=k.colour, marker=k.marker, ls=k.line, label=n) for n, k in looks.items()]
            columns = round(width / (1.5 if max(map(len, looks)) <= THIRD else 2.4))
            figure.legend(handles=handles, loc="outside upper center", ncols=columns, handlelength=3.2)
        figure.supxlabel(x)
        if y:
            figure.supylabel(y)
    return Picture(figure, alt)


def curve(
    ax: Axes,
    frame: pd.DataFrame,
    x: str,
    y: str,
    marked: int = MARKED,
    middle: str | None = None,
    band: bool = False,
    points: np.ndarray | None = None,
    **options: Any,
) -> None:
    """One line an arm, in the arm's own look, with a marker on one in `marked` points (0: none).

    `middle`, median or mean, is drawn of the seeds that share a point, and with `band` from the lowest to the highest.
    Given `points` on x, a line pauses at those at which it has no value, and a point alone is marked, too.
    """
    frame = frame.dropna(subset=y)
    if middle:
        seeds = frame.groupby(["schedule", x])[y].agg(["min", middle, "max"]).reset_index(x)
        for arm, of in seeds.groupby("schedule") if band else ():
            ax.fill_between(x, "min", "max", data=of, color=look(arm).colour, alpha=0.15, linewidth=0)
        frame = seeds.rename(columns={middle: y}).reset_index()
    first, step = marked // 2, max(1, marked)
    options |= {"markersize": 4 if marked else 0, "markeredgewidth": 0, "markevery": (first, step)}
    for arm in in_order(frame["schedule"]):
        k, line = look(arm), frame[frame["schedule"] == arm].set_index(x)[y].sort_index()
        if points is not None:
            line = line.reindex(points)
            lone = line.notna() & line.shift().isna() & line.shift(-1).isna()  # of which no segment is drawn
            options["markevery"] = sorted({*range(first, len(points), step), *np.flatnonzero(lone).tolist()})
        ax.plot(line.index, line, color=k.colour, marker=k.marker, linestyle=k.line, **options)


def svg(figure: Figure, name: str) -> str:
    """The figure as SVG to be inlined in a page or saved: the same figure and name always give the same text.

    Identifiers depend on `name`, so that figures with distinct names share a page without clashing.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    figure.set_layout_engine("none")  # laid out once: another save would move it by a hair
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace("<svg ", '<svg class="plot" ', 1)
    text = re.sub(r"<style.*?</style>", f"<style>{CSS}</style>", text, count=1, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)  # only clip paths and markers are referred to
    text = re.sub(r"<!--.*?-->\s*|<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # A hundredth of a point is finer than any screen. Words, such as an axis number, stay as they are.
    return re.sub(r">[^<]+<|(\d\.\d\d)\d+", lambda found: found[1] or found[0], text)


def picture_files(text: str, name: str) -> dict[str, str]:
    """The figure `text` that `svg` made, as a file for light ground and one for dark, by their names.

    A code host shows pictures on a ground of its reader's choice, which is not always that of the reader's system; so
    neither file asks for the system's, and the page that holds them chooses.
    """
    light = text.replace(CSS, LINES)
    return {f"{name}.svg": light, f"{name}-dark.svg": light.replace(INK, INK_ON_DARK)}
