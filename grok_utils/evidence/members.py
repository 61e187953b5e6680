"""The studies behind the evidence, each record reduced to a row a member for each clock that its time is told by."""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from grok_utils.analysis.crossings import GROUP, MEMBER, crossings
from grok_utils.analysis.inference import crossings_by_examples, instability, sustained_crossings
from grok_utils.errors import Damaged
from grok_utils.page.prose import lacking
from grok_utils.pipeline.study_files import load_study
from grok_utils.store.records import read_study

MODULAR = ("x_plus_y", "x_minus_y", "x_div_y")
ORDER = {operation: f"order-{operation}" for operation in MODULAR}
RATES, HORIZON, PRECISION = "rates", "horizon", "precision"
STUDIES = ("confirm", *ORDER.values(), RATES, HORIZON, PRECISION)  # by the first, the others are judged
CLOCKS = ("99 %", "95 %", "99.9 %", "ten logs in a row", "examples seen")  # the first is the outcome of the plan


class Evidence(NamedTuple):
    """The studies of the claims.

    members: a row a member and clock, the columns of `crossings.crossings` with study, clock and those of
    `inference.instability`, at 99 %. studies: study, title, seeds, records. metadata: of every record.
    """

    members: pd.DataFrame
    studies: pd.DataFrame
    metadata: list[dict[str, Any]]


def read_evidence(results: Path | str) -> Evidence:
    """STUDIES from `results`. Raises Damaged on a bad or absent record."""
    studies = [load_study(name) for name in STUDIES]
    if waits_for := lacking(studies, results):
        raise Damaged(f"the claims are not judged yet: they wait for {waits_for}")
    members, rows, metadata = [], [], []
    for study in studies:
        frame, about = read_study(study, results)
        members.append(by_clock(frame).assign(study=study.name))
        rows.append({"study": study.name, "title": study.title, "seeds": len(study.seeds), "records": len(about)})
        metadata += about
    return Evidence(pd.concat(members, ignore_index=True), pd.DataFrame(rows), metadata)


def by_clock(frame: pd.DataFrame) -> pd.DataFrame:
    """The `members` of one study's rows; by examples seen without the arms that end before that clock's horizon."""
    frame = frame.astype(dict.fromkeys(GROUP, "category"))  # a million rows are grouped in half the time
    clocks = [crossings(frame), crossings(frame, 0.95), crossings(frame, 0.999), sustained_crossings(frame)]
    clocks.append(crossings_by_examples(frame))
    table = pd.concat([rows.assign(clock=name) for name, rows in zip(CLOCKS, clocks, strict=True)])
    later = instability(frame).set_index(MEMBER)[["logs_after", "share_below", "final_accuracy"]]
    return table.join(later, on=MEMBER).astype(dict.fromkeys(GROUP, "str"))


def of_study(members: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The rows of these studies."""
    return members[members["study"].isin(names)]


def of_arm(members: pd.DataFrame, arm: str, operation: str) -> pd.DataFrame:
    """The rows of one arm of `confirm` on one operation."""
    return of_study(members, STUDIES[0]).query("schedule == @arm and operation == @operation")
