"""The studies behind the evidence, each record reduced to a row a member for each clock that its time is told by."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from grok_utils.analysis.crossings import MEMBER, crossings
from grok_utils.analysis.inference import crossings_by_examples, instability, sustained_crossings
from grok_utils.errors import Damaged
from grok_utils.pipeline.study_files import load_study
from grok_utils.store.records import read_study
from grok_utils.studies import Run

ORDER = ("order-x_plus_y", "order-x_minus_y", "order-x_div_y")
CELLS = ("rate-half", "rate-one", "rate-double", "decay-quarter", "decay-one", "rate-half-held", "rate-double-held")
RATES = ("rate-sqrt-batch", "rate-mirror")  # the learning rate follows the batch size; rate-one is their reference
PRECISION = ("precision-tf32", "precision-bf16")
STUDIES = ("confirm", *ORDER, *CELLS, *RATES, "horizon", *PRECISION)
CLOCKS = ("99 %", "95 %", "99.9 %", "ten logs in a row", "examples seen")  # the first is the outcome of the plan


class Evidence(NamedTuple):
    """What there is of the studies.

    members: a row a member and clock, the columns of `statistics.crossings` with study, clock, mean_batch (up to the
    crossing, or to the horizon) and those of `inference.instability`, at 99 %. studies: study, title, seeds, records,
    planned. short: the arms that end before the horizon of the clock of examples. metadata: of every record.
    """

    members: pd.DataFrame
    studies: pd.DataFrame
    short: dict[str, list[str]]
    metadata: list[dict[str, Any]]


def read_evidence(results: Path | str) -> Evidence:
    """All that `results` holds of STUDIES. Raises Damaged where a record is bad, and without any of `confirm`."""
    members, studies, short, metadata = [], [], {}, []
    for name in STUDIES:
        study = load_study(name)
        found = [
            Run(study, arm, (s,), Path(results)).record(s).exists() for arm in study.schedules for s in study.seeds
        ]
        row = {"study": name, "title": study.title, "seeds": len(study.seeds)}
        studies.append(row | {"records": sum(found), "planned": len(found)})
        if any(found):
            frame, about = read_study(study, results)
            table, short[name] = by_clock(frame)
            members.append(table.assign(study=name))
            metadata += about
    if not studies[0]["records"]:
        raise Damaged(f"{results} holds no record of {STUDIES[0]}, by which the others are judged: make its runs first")
    return Evidence(pd.concat(members, ignore_index=True), pd.DataFrame(studies), short, metadata)


def by_clock(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The `members` of one study's rows, and the arms that end before the horizon of the clock of examples."""
    by_examples, short = crossings_by_examples(frame)
    clocks = [
        crossings(frame),
        crossings(frame, 0.95),
        crossings(frame, 0.999),
        sustained_crossings(frame),
        by_examples,
    ]
    table = pd.concat([rows.assign(clock=name) for name, rows in zip(CLOCKS, clocks, strict=True)])
    later = instability(frame).set_index(MEMBER)[["logs_after", "share_below", "final_accuracy"]]
    all_seen = frame.groupby(MEMBER)["examples_seen"].max().rename("all_seen")
    table = table.join(later, on=MEMBER).join(all_seen, on=MEMBER)
    seen, until = table["examples_seen"].fillna(table["all_seen"]), table["updates"].fillna(frame["update"].max())
    return table.assign(mean_batch=seen / until).drop(columns="all_seen"), short


def incomplete(studies: pd.DataFrame, names: tuple[str, ...] = STUDIES) -> pd.DataFrame:
    """The rows of `Evidence.studies` that have fewer records than planned, among `names`."""
    return studies[studies["study"].isin(names) & (studies["records"] < studies["planned"])]
