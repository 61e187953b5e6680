"""The report's small tables: settings, schedules as run, final metrics side by side, provenance."""

from typing import Any

import numpy as np
import pandas as pd

from grok_utils.analysis import summaries
from grok_utils.analysis.crossings import GROUP, in_order
from grok_utils.analysis.inference import share_band
from grok_utils.page.prose import either, optimizers
from grok_utils.studies import HYPER, Follows, Scheduled, Study
from grok_utils.tasks import written

SETTINGS = {name: name.replace("_", " ") for name in ("operations", "modulus", "train_fraction", *HYPER, "precision")}
SETTINGS |= {"modulus": "modulus of the residues", "train_fraction": "share of the pairs in training"}
UNUSUAL = {"warm_up": "updates of warm-up", "optimizer": "optimizer"}  # told where any arm's is not the default
UNUSUAL |= {"width": "width of the decoder", "heads": "heads", "blocks": "blocks"}


def settings(study: Study) -> pd.DataFrame:
    """The study's settings: setting, value; where arms differ, each value with its arms."""
    rows = [("arms", ", ".join(in_order(a.name for a in study.arms))), ("seeds", in_words(study.seeds))]
    rows.append(("updates", in_words(study.updates)))
    if study.stop_after is not None:
        rows.append(("a run ends early", f"once all its models have kept 99 % for {study.stop_after:,} updates"))
    warm_up = f"{optimizers(study)}, {either(study, 'warm_up')} updates of warm-up"
    told = SETTINGS | {"learning_rate": f"learning rate ({warm_up})"}
    for name, words in (told | {name: words for name, words in UNUSUAL.items() if study.varies(name)}).items():
        of: dict[str, list[str]] = {}
        for arm in study.arms:
            in_grid = any(name in dict(cell.values) for cell in arm.cells)
            of.setdefault("the cell's" if in_grid else in_words(getattr(arm.settings, name)), []).append(arm.name)
        values = [f"{value}: {', '.join(arms)}" if len(of) > 1 else value for value, arms in of.items()]
        rows.append((words, "\n".join(values)))
    cells = dict.fromkeys(c.name for a in study.arms for c in a.cells if c.name)
    rows += [("cells of the grid", ", ".join(cells))] if cells else []
    return pd.DataFrame(rows, columns=["setting", "value"])


def in_words(value: Any) -> str:
    """A setting's value in words."""
    if isinstance(value, Scheduled):
        course = f"{value.schedule} from {value.lo:g} to {value.hi:g}"
        course += f" over {value.length:,} updates" if value.length else ""
        return course + (f", its {value.control} to update {value.window or 'the last'}" if value.control else "")
    if isinstance(value, Follows):
        base = "the batch size" if value.follows is None else f"a batch size {in_words(value.follows)}"
        return f"{value.value:g} at {value.at:g} of {base}, to the power {value.power:g}"
    if isinstance(value, tuple):
        return ", ".join(f"{written(v[0])} {in_words(v[1])}" if isinstance(v, tuple) else in_words(v) for v in value)
    return f"{value:,}" if type(value) is int else written(str(value))


def schedules(frame: pd.DataFrame) -> pd.DataFrame:
    """Each arm's batch size at a few moments, its mean and the examples seen: one row an arm."""
    rows, seen = [], frame.dropna(subset="val_accuracy").groupby("schedule")["examples_seen"].max()
    for arm, sizes in batch_sizes(frame).items():
        at = {f"at {100 * part:.0f} %": int(sizes[round(part * len(sizes)) - 1]) for part in (0.1, 0.5)}
        row = {"arm": arm, "first batch": int(sizes[0])} | at | {"last": int(sizes[-1])}
        rows.append(row | {"mean batch": sizes.mean().round(1), "examples seen": int(seen[arm])})
    return pd.DataFrame(rows)


def batch_sizes(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """The batch sizes of each arm's blocks, as recorded, for `figures.schedules`."""
    sizes = frame.drop_duplicates(["schedule", "update"]).sort_values("update").groupby("schedule")["batch_size"]
    return {arm: sizes.get_group(arm).to_numpy() for arm in in_order(frame["schedule"])}


def reached_by(members: pd.DataFrame) -> pd.DataFrame:
    """How many of its n seeds have grokked by each fifth of the run: one row an operation and arm."""
    fifths = [int(members["horizon"].max()) * i // 5 for i in range(1, 6)]
    band = share_band(members, fifths).rename(columns={"schedule": "arm"})
    wide = band.pivot_table("reached", ["operation", "arm", "n"], "update", sort=False, aggfunc="first")
    return wide.rename(columns="by {:,}".format).rename_axis(columns=None).reset_index()


def final(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of `summaries.final_metrics` as one row a cell: n, then mean, low and high of each metric."""
    wide = [metrics.groupby(GROUP, sort=False)["n"].min()]
    for metric, rows in metrics.groupby("metric", sort=False):
        names = [metric, f"{metric}_low", f"{metric}_high"]
        wide.append(rows.set_index(GROUP)[["mean", "low", "high"]].set_axis(names, axis=1))
    return pd.concat(wide, axis=1).reset_index()


def moves(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of `analysis.moves.summary` in words, each value of a measure as text in three significant digits."""
    values = summary[["start", "end"]].map("{:.3g}".format)
    return summary.assign(measure=summary["measure"].str.replace("_", " "), **values)


def best_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """`summaries.best_cells` of the rows of `summaries.summarise`, each setting as text, in all of its digits."""
    best = summaries.best_cells(cells)
    settings = list(summaries.cell_settings(cells))
    return best.assign(**best[settings].map("{:g}".format, na_action="ignore"))


def provenance(made: list[dict[str, Any]]) -> pd.DataFrame:
    """Where and with what records were `made`, from `records.makings`: item, value; distinct values a line each."""
    columns = {
        "device": [f"{m['device']}: {m['device_name']}" for m in made],
        "execution": [execution(m) for m in made],
        "commit": [(m["commit"] or "none")[:10] + (" with uncommitted changes" if m["dirty"] else "") for m in made],
        "platform": [m["platform"] for m in made],
        "training time": [f"{sum(m['seconds'] * m['share'] for m in made) / 60:,.1f} minutes in all"],
    }
    for package in dict.fromkeys(p for m in made for p in m["versions"]):
        columns[package] = [str(m["versions"].get(package) or "none") for m in made]
    rows = [(item, "\n".join(dict.fromkeys(values))) for item, values in columns.items()]
    return pd.DataFrame(rows, columns=["item", "value"])


def execution(made: dict[str, Any]) -> str:
    """How a record's numbers were computed."""
    threads = "1 CPU thread" if made["threads"] == 1 else f"{made['threads']} CPU threads"
    attention = f", attention {made['attention']}" if "attention" in made else ""  # not said before shapes could vary
    return f"{made['precision']}, {'compiled' if made['compiled'] else 'eager'}{attention}, {threads}"
