"""What a notebook shows: figures and tables with captions, kept as files, and the progress of a run."""

import time
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import DisplayHandle, display
from matplotlib.figure import Figure

from grok_utils.page.style import STYLE, WIDTH, Picture, look, picture_files, svg
from grok_utils.pipeline.plan import clock
from grok_utils.schedules import BLOCK
from grok_utils.store.files import write_text
from grok_utils.tasks import written

WRAPPED = {40: "text", 24: "words"}  # characters: a column with longer texts wraps, the longest ones late; others never
DIGITS = {0: 100, 1: 10, 2: 1, 3: 0.1}  # decimals, by what a column's usual size exceeds; 4 for smaller ones
REDRAW = 2.0  # seconds between two states of the live figure
Headings = Mapping[str | tuple[str, str], str]
About = dict[str, dict[str, Any]]  # metadata by the kind of data


def publish(picture: Picture, name: str, caption: str, folder: Path | str | None = None) -> None:
    """Show a picture, and keep it as `folder/name.svg` and, for dark ground, as `folder/name-dark.svg`.

    The report prints it with its caption. Names are unique within a notebook: prose refers to a figure as
    `[Figure](#name)`.
    """
    text = svg(picture.figure, name)
    for file, drawn in picture_files(text, name).items():
        save(drawn, folder, file)
    data = {"image/svg+xml": text, "text/plain": f"{caption}\n{picture.alt}"}
    wide = bool(picture.figure.get_figwidth() > WIDTH)
    show(data, {"image/svg+xml": {"name": name, "alt": picture.alt, "caption": caption, "wide": wide}})


def publish_table(
    frame: pd.DataFrame,
    name: str,
    caption: str,
    folder: Path | str | None = None,
    headings: Headings | None = None,
    best: Mapping[str, str] | None = None,
    missing: Mapping[str, str] | None = None,
) -> None:
    """Show a table, and keep all its columns, unrounded, as `folder/name.csv`.

    `headings` maps the columns to show to their headings (default: all); a pair of columns is shown as an interval.
    `best` maps columns to `min` or `max`: what is best of its operation is printed bold. `missing` maps columns to the
    words for an absent value. Prose refers to the table as `[Table](#name)`.
    """
    save(frame.to_csv(index=False), folder, f"{name}.csv")
    if "operation" in frame:  # by its name in the file, which tools read
        frame = frame.assign(operation=frame["operation"].map(written))
    headings = headings or {column: str(column).replace("_", " ") for column in frame}
    text = table_html(frame, headings, bold_cells(frame, best or {}), missing or {})
    data = {"text/html": text, "text/plain": f"{caption}\n{frame.to_string(index=False)}"}
    show(data, {"text/html": {"name": name, "caption": caption}})


def save(text: str, folder: Path | str | None, name: str) -> None:
    """Write `text` to `folder/name`, whole or not at all; nowhere without a folder."""
    if folder is not None:
        write_text(Path(folder, name), text)


def show(data: dict[str, str], about: About | None = None, handle: DisplayHandle | None = None) -> DisplayHandle | None:
    """Show `data` with metadata `about`, which the report's template prints; outside IPython, nothing.

    It takes the place of what `handle` showed, where there is one.
    """
    if handle is not None:
        handle.update(data, metadata=about, raw=True)
    elif InteractiveShell.initialized():
        handle = display(data, metadata=about, raw=True, display_id=True)
    return handle


def bold_cells(frame: pd.DataFrame, best: Mapping[str, str]) -> dict[Any, pd.Series]:
    """Which cells of these columns equal the best of their operation; a column of equals has no best."""
    of = {column: frame.groupby("operation")[column] for column in best}
    return {c: (frame[c] == of[c].transform(which)) & (of[c].transform("nunique") > 1) for c, which in best.items()}


def words(columns: pd.DataFrame, absent: str = "–") -> list[str]:
    """The cells of one column, or of the two that bound an interval, as text.

    Whole numbers get separators, others the digits that the column's size calls for.
    """
    sizes = np.abs(columns.select_dtypes("floating").to_numpy(np.float64))
    usual = np.median(sizes[sizes > 0]) if (sizes > 0).any() else 0
    digits = next((d for d, least in DIGITS.items() if usual > least), 4)

    def write(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, str):
            return value
        if not isinstance(value, float):
            return f"{value:,}".replace("-", "−")
        if digits >= 3 and 0 < value < 0.5 * 10**-digits:  # a p is never 0
            return f"< {10**-digits:.{digits}f}"
        return f"{value:z,.{digits}f}".replace("-", "−")

    rows = columns.astype(object).itertuples(index=False)
    return [absent if any(map(pd.isna, row)) else " to ".join(map(write, row)) for row in rows]


def table_html(frame: pd.DataFrame, headings: Headings, bold: dict[Any, pd.Series], missing: Mapping[str, str]) -> str:
    """A plain HTML table; columns of numbers are aligned right, those of long texts wrap, but for cells of lines."""
    head, columns, frame = "", [], frame.infer_objects()  # numbers with None among them are numbers too
    for column, heading in headings.items():
        cells = frame[list(column) if isinstance(column, tuple) else [column]]
        number = "" if cells.select_dtypes("number").empty else ' class="number"'
        texts = [escape(text) for text in words(cells, missing.get(cells.columns[0], "–"))]
        heavy = bold.get(column, [False] * len(cells))
        longest = max((len(text) for text in texts if "\n" not in text), default=0)
        place = number or next((f' class="{name}"' for length, name in WRAPPED.items() if longest > length), "")
        places = [' class="lines"' if "\n" in text else place for text in texts]
        head += f'<th scope="col"{number}>{escape(heading)}</th>'
        cells = zip(places, texts, heavy, strict=True)
        columns.append([f"<td{p}>{f'<b>{t}</b>' if b else t}</td>" for p, t, b in cells])
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in zip(*columns, strict=True))
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


class Progress:
    """The progress of a training run, in one display that is replaced: an executed notebook keeps its last state.

    `Progress(updates, title)` is called as `training.train` calls it, twice a second: with the updates done and the
    logs so far [logs, members, 4], whose last axis is training loss and accuracy, validation loss and accuracy.
    `figure=True` adds validation accuracy as it grows, a line for each member. `work` is that of each block (None: all
    alike), by which the time left is reckoned: under a growing batch later blocks take longer.
    """

    def __init__(self, total: int, title: str, figure: bool = False, work: np.ndarray | None = None) -> None:
        self.total, self.title, self.figure = total, title, figure
        self.work = np.concatenate([[0], np.cumsum(np.ones(total // BLOCK) if work is None else work)])
        self.start, self.first = time.monotonic(), 0
        self.bar: DisplayHandle | None = None
        self.live: DisplayHandle | None = None
        self.drawn = -np.inf

    def __call__(self, update: int, logs: np.ndarray) -> None:
        now = time.monotonic()
        if self.bar is None:
            self.first = update  # a resumed run starts in the middle: its rate counts from here
        self.bar = show({"text/plain": self.text(update, logs, now - self.start)}, handle=self.bar)
        if self.figure and (update >= self.total or now - self.drawn >= REDRAW):
            self.drawn = now
            alt = f"Line chart of validation accuracy of {self.title} up to update {update:,}{accuracy(logs, ': ')}."
            about = {"name": "live", "alt": alt, "caption": f"Validation accuracy of {self.title} while it trains."}
            data = {"image/svg+xml": self.picture(logs), "text/plain": about["caption"]}
            self.live = show(data, {"image/svg+xml": about}, self.live)

    def text(self, update: int, logs: np.ndarray, seconds: float) -> str:
        """One line: bar, per cent, updates, time gone and left, median validation accuracy over members."""
        part = update / self.total
        bar = f"{self.title}  {'█' * int(20 * part):░<20}  {part:4.0%}"
        line = f"{bar}  {update:,} of {self.total:,} updates  {clock(seconds)}"
        if update < self.total and update > self.first:
            first, now, end = self.work[[self.first // BLOCK, update // BLOCK, -1]]
            line += f", {clock(seconds * (end - now) / (now - first))} left"
        return line + accuracy(logs, "  validation accuracy ")

    def picture(self, logs: np.ndarray) -> str:
        """The validation accuracy of every member so far, as SVG."""
        with matplotlib.rc_context(STYLE):
            figure = Figure((WIDTH, 2.4), layout="constrained")
            ax = figure.subplots()
            updates = BLOCK * np.arange(1, len(logs) + 1)
            ax.plot(updates, logs[:, :, 3], color=look(self.title.rpartition("-seed")[0]).colour)  # the arm's
            ax.set(xlim=(0, self.total), ylim=(0, 1.02), xlabel="update", ylabel="validation accuracy")
            ax.yaxis.set_major_formatter("{x:.0%}")
        return svg(figure, "live")


def accuracy(logs: np.ndarray, before: str) -> str:
    """The last validation accuracy, median over members, with words `before` it; nothing where none is finite."""
    last = logs[-1, :, 3]
    return f"{before}{np.nanmedian(last):.1%}" if np.isfinite(last).any() else ""
