"""The figures of the tuned answer, in the style of `page.figures`."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, NoNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from grok_utils.analysis.crossings import in_order
from grok_utils.page.descriptions import extremes, in_each
from grok_utils.page.figures import CELL_COLOURS, draw_cells
from grok_utils.page.style import INK, LOOKS, STYLE, WIDE, Look, Picture, panels, short
from grok_utils.tasks import written
from grok_utils.tuned.costs import above_frontier
from grok_utils.tuned_page.answer import KINDS, SETTINGS

COLOURS = dict(zip(SETTINGS, (INK, LOOKS["linear"].colour), strict=True))
SIZES = (32, 128, 512, 2048)  # batch sizes with a tick
MARKERS = dict(zip(KINDS, "o^Dvs", strict=True))
TIMES = (100, 200, 500, 1000, 2000, 5000)  # updates with a tick
EXAMPLES = (50_000, 200_000, 1_000_000)  # with a tick
RATES, DECAYS = (5e-4, 2e-3, 8e-3, 3.2e-2), (0.125, 0.5, 2.0)  # with a tick
WHOLE, GENERAL = "{:,.0f}".format, "{:g}".format
Form = Callable[..., str]


def log_axes(ax: Axes, x: Iterable[float], y: Iterable[float], x_form: Form = WHOLE, y_form: Form = WHOLE) -> None:
    """Logarithmic axes with ticks at these numbers alone (at powers of 10, where there are none), in these forms."""
    ax.set(xscale="log", yscale="log")
    for axis, ticks, form in ((ax.xaxis, [*x], x_form), (ax.yaxis, [*y], y_form)):
        if ticks:
            axis.set_ticks(ticks)
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(form)


def colours_of(medians: pd.Series, norm: LogNorm) -> np.ndarray:
    """The colour of each cell of a grid, clear where the median is not known."""
    colours = CELL_COLOURS(norm(medians))
    colours[~np.isfinite(medians)] = 0
    return colours


def add_bar(
    figure: Figure, axes: Sequence[Axes], colours: ScalarMappable, label: str, ticks: Mapping[int, str], pad: float
) -> None:
    """A bar of `colours` above these axes, `pad` of their height away, with these words at these values."""
    with matplotlib.rc_context(STYLE):
        bar = figure.colorbar(colours, ax=axes, location="top", aspect=50, pad=pad, label=label)
        bar.set_ticks([*ticks], labels=[*ticks.values()])
        bar.minorticks_off()


def add_steps(figure: Figure, axes: Sequence[Axes], shades: Mapping[float, np.ndarray], label: str) -> None:
    """A bar above a row of axes of the colour of each of these values."""
    steps = ScalarMappable(NoNorm(), ListedColormap(np.array([*shades.values()])))
    steps.set_array(range(len(shades)))
    add_bar(figure, axes, steps, label, {i: f"{value:,g}" for i, value in enumerate(shades)}, pad=0.04)


def updates_against_batch(table: pd.DataFrame) -> Picture:
    """Updates to 99 % against batch size at either setting, from `answer.points`: constants joined, and schedules."""

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        for setting, colour in COLOURS.items():
            of = rows[rows["setting"] == setting]
            line = of[of["kind"] == "constant"].sort_values("batch")
            ax.plot(line["batch"], line["rmst"], color=colour, linewidth=1.2)
            ax.vlines(of["batch"], of["low"], of["high"], color=colour, linewidth=1, alpha=0.7)
            for (kind, most), at in of.groupby(["kind", of["reached"] > of["n"] / 2]):
                size, face = 3.5 if kind == "constant" else 4.5, colour if most else "none"
                ax.plot(at["batch"], at["rmst"], MARKERS[kind], color=colour, markerfacecolor=face, markersize=size)

        log_axes(ax, SIZES, TIMES)

    def say(rows: pd.DataFrame) -> str:
        constants = rows[rows["kind"] == "constant"].set_index("schedule").groupby("setting", sort=False)["rmst"]
        return ", ".join(f"{setting} {extremes(rmst)}" for setting, rmst in constants)

    alt = (
        "Updates to 99 % validation accuracy against mean batch size, both logarithmic, a panel for each operation: a "
        "line of constant batches at the original's rate and decay, another with both tuned, schedules as points. "
        f"Restricted means of the constants: {in_each(table, say)}"
    )
    looks = {f"{setting}, constant": Look(colour, "o") for setting, colour in COLOURS.items()}
    looks |= {kind: Look(INK, MARKERS[kind], "none") for kind in KINDS[1:] if (table["kind"] == kind).any()}
    return panels(table, draw, alt, "mean batch size up to the touch", "updates to 99 % (RMST)", looks, width=WIDE)


def heat_maps(cells: pd.DataFrame, best: pd.DataFrame, operation: str) -> Picture:
    """Median updates to 99 % over rate and decay of one operation, an arm a panel, from `choices.ranked`.

    A square is a cell of the grid, empty where half of its seeds or more never reach; a dot is a neighbour at a factor
    of √2; the cross marks the best cell.
    """
    of = cells[(cells["operation"] == operation) & (cells["outcome"] == "touch")]
    known = of["median"][np.isfinite(of["median"])]
    least, most = (known.min(), known.max()) if len(known) else (1.0, 10.0)
    norm = LogNorm(least, most)
    found = best[(best["operation"] == operation) & (best["outcome"] == "touch")].set_index("schedule")

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        x, y = np.log2(rows["learning_rate"] / 1e-3), np.log2(rows["weight_decay"])
        square = np.isclose(x, x.round(), atol=0.02) & np.isclose(y, y.round(), atol=0.02)
        colours = colours_of(rows["median"], norm)
        draw_cells(ax, x[square], y[square], colours[square])
        ax.scatter(x[~square], y[~square], 14, color=colours[~square], edgecolor=INK, linewidth=0.4, zorder=3)
        at = found.loc[rows["schedule"].iloc[0]]
        if np.isfinite(at["median"]):
            ax.plot(np.log2(at["learning_rate"] / 1e-3), np.log2(at["weight_decay"]), "kx", markersize=5, zorder=4)
        for axis, ticks in ((ax.xaxis, [1e3 * rate for rate in RATES]), (ax.yaxis, DECAYS)):
            axis.set_ticks(np.log2(ticks), [f"{value:g}" for value in ticks])
        ax.grid(False)

    arms = in_order(of["schedule"])
    soonest = found.loc[arms, "median"]
    never = int((~np.isfinite(soonest)).sum())
    none = f", in {never} of {len(arms)} none" if never else ""
    alt = (
        f"Heat maps of median updates to 99 % on {written(operation)} over learning rate and weight decay, a panel for "
        f"each of {len(arms)} arms, {len(of)} cells in all. The best cell of an arm: {extremes(soonest)}{none}."
    )
    columns = next((n for n in (4, 5, 3) if len(arms) % n != 1), 4)  # so that none stands alone in the last row
    words = "learning rate, in thousandths", "weight decay"
    picture = panels(of, draw, alt, *words, height=1.15, by="schedule", columns=columns, width=WIDE)
    figure, ticks = picture.figure, {t: short(t) for t in TIMES if least <= t <= most}
    add_bar(figure, figure.axes, ScalarMappable(norm, CELL_COLOURS), "median updates to 99 %", ticks, pad=0.01)
    return picture


def shades_of(values: pd.Series) -> dict[float, np.ndarray]:
    """A colour for each distinct value, darker for larger ones, all of which stand out from white and near-black."""
    distinct = sorted(values.unique())
    return dict(zip(distinct, matplotlib.colormaps["viridis_r"](np.linspace(0.12, 0.8, len(distinct))), strict=True))


def collapse(cells: pd.DataFrame) -> Picture:
    """T / τ against rate × decay, a colour a batch size, an operation a panel, from `laws.surface`.

    Filled: the cells that count for the law; open: the others with a median.
    """
    known = cells.dropna(subset=["in_tau"])
    shades = shades_of(known["batch"])

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        for (batch, counts), of in rows.groupby(["batch", "counts"]):
            face = shades[batch] if counts else "none"
            ax.plot(1 / of["tau"], of["in_tau"], "o", color=shades[batch], markerfacecolor=face, markersize=4)
        ax.axhline(1, color=INK, linewidth=0.8, linestyle=":")
        log_axes(ax, (), (), GENERAL, GENERAL)

    def say(rows: pd.DataFrame) -> str:
        of = rows[rows["counts"].astype(bool)].groupby("batch")["in_tau"].mean()
        return extremes(of.rename("batch {:,}".format), "{:.2f}")

    alt = (
        "Time to 99 % in units of τ, AdamW's decay timescale, against rate × decay, both logarithmic, a panel for each "
        f"operation, a colour for each batch size. The mean over the cells that count: {in_each(known, say)}"
    )
    picture = panels(known, draw, alt, "learning rate × weight decay", "T / τ", height=2.5, width=WIDE)
    add_steps(picture.figure, picture.figure.axes, shades, "batch size")
    return picture


def edges(table: pd.DataFrame) -> Picture:
    """The edge of stability against batch size, from `laws.edges`: the highest rate at each decay, and the highest
    decay at each rate, at which all seeds reach; open where they do not all keep."""
    table = table.assign(panel=table["of"].map("highest {}, ".format) + table["operation"].map(written))
    shades = {of: shades_of(rows["at"]) for of, rows in table.dropna(subset=["reach"]).groupby("of")}

    def draw(ax: Axes, panel: pd.DataFrame) -> None:
        for at, of in panel.dropna(subset=["reach"]).sort_values("batch").groupby("at"):
            colour = shades[panel["of"].iloc[0]][at]
            ax.plot(of["batch"], of["reach"], color=colour, linewidth=1)
            keep = of["keep"] >= of["reach"]
            for rows, face in ((of[keep], colour), (of[~keep], "none")):
                ax.plot(rows["batch"], rows["reach"], "o", color=colour, markerfacecolor=face, markersize=4)
        stable = table.loc[table["of"] == panel["of"].iloc[0], "reach"]
        log_axes(ax, SIZES, sorted(stable.dropna().unique()), y_form=GENERAL)

    highest = table.groupby(["panel", "batch"])["reach"].max().rename("batch {:,}".format, level="batch")
    told = [f"{panel}: {extremes(of.droplevel('panel'), '{:g}')}" for panel, of in highest.groupby("panel")]
    alt = (
        "Line charts of the highest rate at each decay, and of the highest decay at each rate, at which all seeds "
        f"reach 99 %, against batch size, both logarithmic, lighter for smaller values of the other. {'. '.join(told)}."
    )
    words = "batch size", "highest stable value"
    picture = panels(table, draw, alt, *words, height=2.4, by="panel", width=WIDE, sharey="row")
    for of, other in (("decay", "learning rate"), ("rate", "weight decay")):
        row = [ax for ax in picture.figure.axes if ax.get_title().startswith(f"highest {of}, ")]
        add_steps(picture.figure, row, shades[of], f"at a {other} of")
    return picture


def frontier(table: pd.DataFrame, steps: pd.DataFrame) -> Picture:
    """Updates against examples to 99 %, tuned, from `answer.points`: constants and their frontier, schedules, and the
    curve S = S_min (1 + B_c / B) of `laws.steps`."""
    tuned = table[table["setting"] == SETTINGS[1]].assign(examples=table["batch"] * table["rmst"])
    tuned = tuned[tuned["kind"] != KINDS[-1]]

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        line = rows[rows["kind"] == "constant"].sort_values("examples")
        ax.plot(line["examples"], line["rmst"], "o", color=INK, markersize=3.5)
        x, y = np.log(line["examples"].to_numpy()), np.log(line["rmst"].to_numpy())
        height = above_frontier(np.tile(x, (len(x), 1)), np.tile(y, (len(y), 1)), x, y)  # NaN outside its range
        hull = line[np.abs(height) < 1e-9]
        ax.plot(hull["examples"], hull["rmst"], color=INK, linewidth=1)
        of = steps[(steps["operation"] == rows["operation"].iloc[0]) & (steps["form"] == "hyperbola")]
        found = of.drop_duplicates("coefficient").set_index("coefficient")["estimate"]
        if len(found):
            batch = np.geomspace(line["batch"].min(), line["batch"].max(), 60)
            taken = 25 + found["S_min"] * (1 + found["B_c"] / batch)
            ax.plot(batch * taken, taken, color=COLOURS[SETTINGS[1]], linewidth=1, linestyle="--")
        for kind in KINDS[1:-1]:
            at = rows[rows["kind"] == kind]
            ax.plot(at["examples"], at["rmst"], MARKERS[kind], color=COLOURS[SETTINGS[1]], markersize=4, alpha=0.8)
        log_axes(ax, EXAMPLES, TIMES, short)

    constants = tuned[tuned["kind"] == "constant"].set_index("schedule")
    said = in_each(constants, lambda rows: f"constants {extremes(rows['examples'])} examples")
    alt = (
        "Updates against examples to 99 %, tuned, both logarithmic, a panel for each operation: constants with the "
        f"lower hull that is their frontier, schedules as points, a curve. Fewest and most: {said}"
    )
    looks = {"constant": Look(INK, "o"), "fitted": Look(COLOURS[SETTINGS[1]], "", (0, (4, 2)))}
    looks |= {k: Look(COLOURS[SETTINGS[1]], MARKERS[k], "none") for k in KINDS[1:-1] if (tuned["kind"] == k).any()}
    return panels(tuned, draw, alt, "examples to 99 %", "updates to 99 %", looks, width=WIDE)


def shapes(table: pd.DataFrame) -> Picture:
    """Median updates of the geometric courses B₀ → B₁ and, on the diagonal, of the constants, from `further.shapes`."""
    windows = sorted(w for w in table["within"].unique() if w)
    constants = table[table["within"] == 0]
    parts = [pd.concat([table[table["within"] == w], constants]).assign(window=w) for w in windows]
    every = pd.concat(parts, ignore_index=True)
    every["panel"] = every["operation"].map(written) + every["window"].map(", within {}".format)
    sizes = sorted(every["first"].unique())
    known = every["median"][np.isfinite(every["median"])]
    norm = LogNorm(known.min(), known.max())

    def draw(ax: Axes, rows: pd.DataFrame) -> None:
        x, y = rows["last"].map(sizes.index), rows["first"].map(sizes.index)
        texts = [f"{median:.0f}" if np.isfinite(median) else "–" for median in rows["median"]]
        draw_cells(ax, x, y, colours_of(rows["median"], norm), texts)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks(range(len(sizes)), [f"{size:,}" for size in sizes])
        ax.tick_params(axis="x", labelrotation=45)
        ax.grid(False)

    medians = every[every["within"] > 0].set_index("schedule").groupby("panel")["median"]
    told = [f"{panel} {extremes(of)}" for panel, of in medians]
    alt = (
        "Heat maps of median updates to 99 % of geometric courses of the batch size, from the size in the row to that "
        f"in the column, constants on the diagonal. Courses: {'. '.join(told)}."
    )
    words = "batch size at the end", "at the beginning"
    return panels(every, draw, alt, *words, height=2.3, by="panel", columns=4, width=WIDE)
