"""The report's sentences: every number in them is computed here from a study's rows."""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sized
from inspect import getdoc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from grok_utils.analysis.crossings import in_order
from grok_utils.analysis.moves import APART, SINCE
from grok_utils.analysis.summaries import cell_settings
from grok_utils.measures import MEASURES, RATIOS
from grok_utils.schedules import BLOCK, SCHEDULES
from grok_utils.store.records import makings, records_there
from grok_utils.studies import PROTOCOL, Study
from grok_utils.tasks import written

NAMED = 3  # commits that are told one by one
FEW = 5  # seeds; with fewer, a study shows that the pipeline works and settles no claim
OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD", "muon": "Muon"}
VERDICTS = {  # of reported means
    "agrees": "lie where 95 % of means of 3 further seeds of ours would",
    "differs": "do not",
    "cannot tell": "cannot be judged",
}


def interval(low: float, high: float) -> str:
    """Such as `1,200 to 1,350`, in whole updates; `no interval` where there is none."""
    return "no interval" if np.isnan(low) else f"{low:,.0f} to {high:,.0f}".replace("-", "−")


def signed(value: float, digits: int = 0) -> str:
    """Such as `−1,067` or `+0.25`, and `0` for what rounds to it; `none` where there is no number."""
    text = f"{value:+z,.{digits}f}"
    return "none" if np.isnan(value) else text.replace("-", "−") if text.strip("+0.,") else text[1:]


def listed(things: Iterable[str], last: str = "and") -> str:
    """Such as `a, b and c`."""
    *front, end = list(things)
    return f"{', '.join(front)} {last} {end}" if front else end


def on_operations(values: Mapping[str, str]) -> list[str]:
    """Such as `a on x + y` and `b on x − y and x / y`, of a text for each operation."""
    alike: dict[str, list[str]] = {}
    for operation, text in values.items():
        alike.setdefault(text, []).append(written(operation))
    return [f"{text} on {listed(operations)}" for text, operations in alike.items()]


def named(names: Iterable[str]) -> str:
    """Such as `a` and `b`, in code marks."""
    return listed(f"`{name}`" for name in names)


def p_value(p: float) -> str:
    """Such as `p = 0.03`, with `< 0.001` for what is smaller."""
    return "no p" if np.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def sample_sizes(table: pd.DataFrame) -> str:
    """Such as `n = 3`, or `n = 2 to 3` where they differ, from column n."""
    return f"n = {from_to(table['n'])}"


def from_to(values: Collection[Any], form: str = "{}") -> str:
    """The least and the greatest of `values`, such as `2 to 3`; `3` where they are one."""
    return " to ".join(map(form.format, dict.fromkeys((min(values), max(values)))))


def count(things: Sized, noun: str) -> str:
    """Such as `2 seeds`."""
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def lacking(studies: Iterable[Study], results: Path | str) -> str:
    """The studies of which `results` has not every record, in words; empty where it has."""
    there = {study.name: records_there(study, results) for study in studies}
    told = [f"`{name}` ({sum(of):,} of {len(of):,} records)" for name, of in there.items() if not all(of)]
    return listed(told) if told else ""


def trained(metadata: list[dict[str, Any]]) -> str:
    """When records were made, in elements that no line's end divides, and from which commits, many told by number."""
    made = makings(metadata)
    commits = {(m["commit"] or "no commit")[:10] + (" with changes" if m["dirty"] else "") for m in made}
    days = from_to([m["started"][:10] for m in made], "<time>{}</time>")
    by_name = f"commit {', '.join(sorted(commits))}"
    told = by_name if len(commits) <= NAMED else f"from {len(commits)} commits ([Table](#provenance))"
    return f"Trained {days}, {told}."


def heading(study: Study, metadata: list[dict[str, Any]]) -> str:
    """The report's title, and a line with the study's name, size, date and commit."""
    seeds, arms = {m["seed"] for m in metadata}, {m["schedule"] for m in metadata}
    cells = {cell.name for arm in study.arms for cell in arm.cells}
    sizes = [count(arms, "arm"), count(seeds, "seed"), count(study.operations, "operation")]
    size = " × ".join(sizes[:1] + ([f"up to {count(cells, 'cell')}"] if len(cells) > 1 else []) + sizes[1:])
    most = "" if study.stop_after is None else "up to "
    planned = len(study.arms) * len(study.seeds)
    lacking = f" **{len(metadata)} of {planned} records are there**: `make all STUDY={study.name}` makes the others."
    return (
        "# Does changing the batch size during training make a transformer grok sooner?\n\n"
        f"Study **{study.name}**: {size}, {most}{study.updates:,} updates each. {trained(metadata)}"
        f"{lacking if len(metadata) < planned else ''}{ended_early(study, metadata)}"
    )


def ended_early(study: Study, metadata: list[dict[str, Any]]) -> str:
    """Which records' runs ended early, and what is therefore left out; nothing where none did."""
    ends = [made["ended"] for made in makings(metadata) if "ended" in made]
    if not ends:
        return ""
    return (
        f"\n\nOf {len(metadata)} records, {len(ends)} are of runs that ended early, at update {from_to(ends, '{:,}')}: "
        f"every model of the run had kept 99 % for {study.stop_after:,} updates, or had diverged. Times to 99 % are "
        "those of whole runs. Of arms with such a run, final losses and accuracies are left out, and curves end where "
        "the first of these runs did."
    )


def either(study: Study, name: str, say: Callable[[Any], str] = str) -> str:
    """The values that a setting has in a study's arms, such as `64 or 128`, or what `say` says of each."""
    return listed(dict.fromkeys(say(getattr(arm.settings, name)) for arm in study.arms), "or")


def optimizers(study: Study) -> str:
    """What trains the study's arms, such as `AdamW or Muon`."""
    return either(study, "optimizer", lambda name: OPTIMIZERS.get(name, f"`{name}`"))


def model(study: Study) -> str:
    """What is trained, and how."""
    blocks, width, heads = (either(study, name) for name in ("blocks", "width", "heads"))
    original = ", as the original's," if all(arm.settings.shape == PROTOCOL.shape for arm in study.arms) else ""
    sizes = [arm.settings.batch_size for arm in study.arms]
    batches = dict.fromkeys("of all training pairs" if size == "all" else "drawn with replacement" for size in sizes)
    return (
        f"Every model is a decoder transformer (blocks: {blocks}, width: {width}, heads: {heads}){original} that reads "
        "`x ∘ y =` and names the result. A fixed share of all pairs is for training, the rest for validation. "
        f"{optimizers(study)} minimises cross-entropy on batches {listed(batches, 'or')}. A log is kept every {BLOCK} "
        "updates. The same seed means the same split and, at one shape, the same initial weights in every arm."
    )


def nothing_of_others(study: Study) -> str:
    """The limitation that follows from what all arms share; empty where they share nothing of it."""
    of = {"architecture": "shape", "optimiser": "optimizer", "training fraction": "train_fraction"}
    alike = [f"one {name}" for name, field in of.items() if len({getattr(a.settings, field) for a in study.arms}) == 1]
    return f"- {listed(alike).capitalize()}. The study says nothing of others." if alike else ""


def schedule_formulas(names: Iterable[str]) -> str:
    """A list of schedules with their formulas, the first lines of their functions' docstrings."""
    formulas = {name: (SCHEDULES[name].__doc__ or "a function of its own").strip().splitlines()[0] for name in names}
    return "\n".join(f"- `{name}`: {formula}" for name, formula in formulas.items())


def grid(cells: pd.DataFrame) -> str:
    """The section on a study's grid but for its figure and tables; `cells` as from `summaries.summarise`."""
    settings = listed(name.replace("_", " ") for name in cell_settings(cells))
    tried = cells.groupby(["operation", "schedule"]).size()
    return (
        f"## The grid\n\nEach arm was trained in {from_to(tried)} cells, "
        f"combinations of {settings}. [Figure](#grid) shows the restricted mean number of updates to 99 % in each "
        "(RMST, [explained below](#section-updates-to-99)), [Table](#cells) all numbers. The answer and all that "
        "follows show each arm at its best cell, that of the smallest RMST ([Table](#best-cells)). The seeds that "
        "chose a cell are those shown in it. So its RMST errs on the small side, the more the more cells were tried."
    )


def grid_caption(cells: pd.DataFrame) -> str:
    """What the heat map shows, of more than two settings too."""
    shown, others = (list(cell_settings(cells))[part] for part in (slice(2), slice(2, None)))
    text = f"RMST by {listed(shown)}, a row for each arm. ×: no seed reached 99 %. Blank: no such cell."
    text += f" Of {listed(others)} the best." if others else ""
    return text.replace("_", " ")


def measures(names: Iterable[str]) -> str:
    """The section on a study's measures but for its figures and table: each by its docstring's first paragraph."""
    said = {name: (getdoc(MEASURES[name].of) or "a function of its own").split("\n\n")[0] for name in names}
    told = "\n".join(f"- `{name}`: {' '.join(text.split())}" for name, text in said.items())
    return f"## Measures\n\nWhat the study measures at every log beside losses and accuracies.\n\n{told}"


def moves(gaps: pd.DataFrame, counts: pd.DataFrame, unknown: pd.Series) -> str:
    """The section on what moves before a member groks, but for its figure and tables; all as from `analysis.moves`."""
    touched, together = gaps["touched"].sum(), gaps["together"].sum()
    told = [f"{touched} of {gaps['n'].sum()} members reach 99 % validation accuracy, the *touch*."]
    if touched:
        told.append("They *memorise* when they reach 99 % training accuracy.")
        told.append(f"{together} of them do so less than {APART} updates before the touch ([Table](#gaps)).")
        told.append("There nothing could move first between the two.")
    told.append(order_of_moves(counts))
    for name, share in unknown.items():
        below = RATIOS.get(name, ("", ""))[1].replace("_", " ")
        why = f", since the mean {below} is not positive: a block's gradients oppose each other" if below else ""
        told.append(f"In {100 * share:.0f} % of their logs until then the {name.replace('_', ' ')} is not known{why}.")
    return f"## What moves before a member groks\n\n{' '.join(filter(None, told))}"


def order_of_moves(counts: pd.DataFrame) -> str:
    """The answer: which measures move before validation accuracy and which after; rows of `analysis.moves.counts`.

    Nothing where no measure can be told from the start.
    """
    rows = counts[counts["since"] == SINCE[1]].assign(measure=lambda rows: rows["measure"].str.replace("_", " "))
    tells = rows[["before", "after"]].any(axis=1)
    known, unknown = rows[tells], rows.loc[~tells, "measure"]
    told = [f"{r.measure} before it in {r.before} and after it in {r.after} of {r.pairs}" for r in known.itertuples()]
    told += [f"of {listed(unknown)} one cannot tell"] if len(unknown) else []
    said = "**Counted from the start, beside validation accuracy,** in pairs of operation and arm: "
    return f"{said}{'; '.join(told)}." if told else ""


def measure_words(column: str) -> str:
    """A measure's column in words, of a ratio with what it is made of."""
    above, *below = (part.replace("_", " ") for part in RATIOS.get(column, (column,)))
    return f"{column.replace('_', ' ')}, the mean {above} over the mean {below[0]}" if below else above


def at_best_cells(best: pd.DataFrame) -> str:
    """What captions add where a study has a grid; `best` as from `summaries.best_cells`."""
    return " Each arm at its best cell of the grid." if (best["tried"] > 1).any() else ""


def answer(cells: pd.DataFrame, differences: pd.DataFrame, reference: str = "baseline") -> str:
    """How the arms compare with the reference arm, in words; `answer_table` has the numbers.

    `cells` as from `summaries.summarise`, `differences` as from `summaries.paired_differences`.
    """
    lines = [f"There are no pairs of seeds yet in which an arm can be compared with `{reference}`."]
    if len(differences):
        of = differences["verdict"].value_counts()
        told = [f"{v} in {of[v]}" for v in ("sooner", "later") if v in of]
        outcome = f"an arm is {' and '.join(told)}" if told else "one can never tell which is sooner"
        if told and "cannot tell" in of:
            outcome += f", and one cannot tell in {of['cannot tell']}"
        lines = [
            f"**In {count(differences, 'comparison')} with `{reference}`, {outcome}.** "
            f"Arms are paired by seed ({sample_sizes(differences)}). The 95 % intervals are not corrected for their "
            "number."
        ]
    if (fewest := cells["n"].min()) < FEW:
        lines.append(f"With n = {fewest} this shows that the study runs. So few seeds settle no claim.")
    return "\n\n".join(lines)


def answer_table(cells: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """The answer in numbers, as text: arm, and a column an operation with the arm's difference from the reference arm.

    An arm that is compared with none has its own restricted mean.
    """
    against = differences.set_index(["schedule", "operation"])
    rows: dict[str, dict[str, str]] = {arm: {} for arm in in_order(cells["schedule"])}
    for cell in cells.to_dict("records"):
        arm, operation = key = cell["schedule"], cell["operation"]
        rows[arm][operation] = contrast(against.loc[key], cell) if key in against.index else state(cell)
    return pd.DataFrame(rows.values(), index=list(rows)).reset_index(names="arm")


def state(cell: Mapping[Hashable, Any]) -> str:
    """An arm's own RMST in a table, or that no seed of it reached 99 %."""
    seeds = f"{cell['reached']} of {cell['n']} reach 99 %"
    if cell["reached"] == 0:
        return f"{seeds}\n(0 to {100 * cell['share_high']:.0f} %)"
    return f"{cell['rmst']:,.0f}\n({interval(cell['rmst_low'], cell['rmst_high'])})\n{seeds}"


def contrast(row: pd.Series, cell: Mapping[Hashable, Any]) -> str:
    """An arm's paired difference from the reference arm in a table, with its verdict."""
    if row["difference"] == 0 and cell["reached"] == 0:
        return f"{row['verdict']}\n{cell['reached']} of {cell['n']} reach 99 % either"
    number = f"{signed(row['difference'])}, {signed(row['percent'])} %"
    return f"{row['verdict']}\n{number}\n({interval(row['low'], row['high'])})"


def beside_reported_sentence(table: pd.DataFrame, unlike: list[str]) -> str:
    """How often the reported means agree with this study, or why the comparison does not apply."""
    if unlike:
        return f"The original's numbers do not apply to this study: {', '.join(unlike)}."
    if table.empty:
        return "The original reported none of this study's arms on its operations."
    count = table["verdict"].value_counts()
    told = listed(f"{count[v]} {words}" for v, words in VERDICTS.items() if v in count)
    return f"Of {len(table)} reported means of 3 seeds, {told} ({sample_sizes(table)} here)."
