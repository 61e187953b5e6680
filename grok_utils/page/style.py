"""One style for every figure: size, type, one look per arm, and SVG that is legible on light and on dark ground."""

import io
import re
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import matplotlib
import seaborn
from matplotlib.figure import Figure

WIDTH = 4.8  # inches: type of 9 points stays readable where a phone shows the figure 360 pixels wide
INK = "#6a737d"  # axes and words: contrast 4.8 on white
INK_ON_DARK = "#c9d1d9"

STYLE: dict[str, Any] = (
    seaborn.axes_style("ticks")
    | {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.labelsize": 9,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "svg.fonttype": "none",  # words stay words: searchable, and small
    }
    | dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    )
)

LINES = "svg.plot *{stroke-linejoin:round;stroke-linecap:butt}"
# Words in a figure of a page take the ground of that page.
CSS = f"""{LINES}
@media screen and (prefers-color-scheme:dark){{
svg.plot [style*="fill: {INK}"]{{fill:{INK_ON_DARK}!important}}
svg.plot [style*="stroke: {INK}"]{{stroke:{INK_ON_DARK}!important}}}}"""


class Look(NamedTuple):
    """How an arm is drawn, everywhere: colour, marker and dashes (on, off, …; empty: solid)."""

    colour: str
    marker: str
    dashes: tuple[float, ...] = ()


# Every colour has a contrast of 3 on white and on near-black. The first six, near Okabe and Ito's, and the others were
# searched for the largest least distance between any two, as seen with and without each kind of colour blindness.
LOOKS = {
    "baseline": Look("#808080", "o"),
    "linear": Look("#0060cc", "s", (5, 1.5)),
    "exponential": Look("#fc6012", "^", (3, 1, 1, 1)),
    "logarithmic": Look("#18a84e", "D", (1.2, 1)),
    "cyclic": Look("#ae84c6", "v", (7, 1.5, 1, 1.5)),
    "stepwise": Look("#9c5a0c", "P", (2.5, 1)),
}
OTHERS = ("#126c6c", "#5a78d8", "#7e8afc", "#9600fc", "#8a42a2", "#9c60a8", "#ba1e5a")
MARKERS = "<>hXpd*"
CONSTANTS = (32, 64, 96, 128, 144, 192, 256)  # solid lines, as the baseline's, which is a constant too
LOOKS |= {f"constant-{b}": Look(c, m) for b, c, m in zip(CONSTANTS, OTHERS, MARKERS, strict=True)}
CONTROLS = ("mean", *(f"shuffled-{k}" for k in range(1, 6)), "reversed")
LOOKS |= {f"linear-{k}": Look(c, m, (4, 1.5)) for k, c, m in zip(CONTROLS, OTHERS, MARKERS[::-1], strict=True)}


def look(arm: str) -> Look:
    """The arm's look; one of another name gets one of the other colours, a marker and dashes by its name alone."""
    if arm in LOOKS:
        return LOOKS[arm]
    n = zlib.crc32(arm.encode())
    return Look(OTHERS[n % 7], MARKERS[n // 7 % 7], (1 + n // 49 % 5, 1 + n // 245 % 2))


def legend_handles(arms: Iterable[str]) -> list[matplotlib.lines.Line2D]:
    """A short line with marker for each arm."""
    looks = {arm: look(arm) for arm in arms}
    return [
        matplotlib.lines.Line2D(
            [], [], color=k.colour, marker=k.marker, ls=(0, k.dashes) if k.dashes else "-", label=arm
        )
        for arm, k in looks.items()
    ]


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
    return re.sub(r"(\d\.\d\d)\d+", r"\1", text)  # a hundredth of a point is finer than any screen


def picture_files(text: str, name: str) -> dict[str, str]:
    """The figure `text` that `svg` made, as a file for light ground and one for dark, by their names.

    A code host shows pictures on a ground of its reader's choice, which is not always that of the reader's system; so
    neither file asks for the system's, and the page that holds them chooses.
    """
    light = text.replace(CSS, LINES)
    return {f"{name}.svg": light, f"{name}-dark.svg": light.replace(INK, INK_ON_DARK)}
