"""What ending early would have saved: docs/studies.md says of five studies what their committed records give."""

from collections import defaultdict

import numpy as np
import pytest
from support.project import ROOT

from grok_utils.engine.trainer import MEASURED, early_end
from grok_utils.pipeline.study_files import load_study
from grok_utils.schedules import BLOCK
from grok_utils.store.records import read_study

SAID = (ROOT / "docs/studies.md").read_text(encoding="utf-8").split("**Ending early.**")[1].split("**Measures.**")[0]
HEADINGS, _, *ROWS = [line.strip("|").split("|") for line in SAID.splitlines() if line.startswith("|")]
STUDIES = [heading.strip(" `") for heading in HEADINGS[1:]]
WITHOUT = "200, without `permutation`"
RULES = [WITHOUT, "200", "500"]  # the rows, in the document's order
SAVED_AS_MADE = {("paper", WITHOUT): "9 %"}  # in the runs that made the records; in all other cells 0


def said_of(study: str) -> dict[str, str]:
    """The document's cells of a study, by its rows' names."""
    return {row[0].strip(): row[1 + STUDIES.index(study)].strip() for row in ROWS}


def saved(runs: list[np.ndarray], stop: int) -> str:
    """The share of all updates that `stop_after: stop` would have saved of runs with these logs, as a cell says it."""
    ends = [early_end(logs, stop) or len(logs) for logs in runs]
    share = 1 - sum(ends) / sum(len(logs) for logs in runs)
    return f"{share:.0%}".replace("%", " %") if share else "0"


def logs_of(name: str) -> tuple[dict[str, list[np.ndarray]], dict[str, list[np.ndarray]]]:
    """The logs [logs, M, 4] of a study's runs for each rule, were they of one seed each, and as they were made."""
    study = load_study(name)
    rows, metadata = read_study(study, ROOT / "results")
    shape = len(metadata), -1, study.updates // BLOCK  # member by member, record by record
    assert (rows["update"].to_numpy().reshape(shape) == BLOCK * np.arange(1, shape[2] + 1)).all()
    # A loss that `every_tenth` left out is not one that diverged; which did, every row says.
    measured = rows[list(MEASURED)].fillna(0.0).to_numpy(np.float32)
    measured[rows["diverged"]] = np.nan
    every = np.moveaxis(measured.reshape(*shape, 4), 2, 1)  # [records, logs, M, 4]
    operations = rows["operation"].to_numpy().reshape(shape)[:, :, 0]
    assert (operations == operations[0]).all()
    stacks = defaultdict(list)  # the oldest records don't name their run's seeds, but all of a run took as long
    for i, m in enumerate(metadata):
        (made,) = m["made"]
        stacks[m["schedule"], made["started"], made["seconds"], made["share"]].append(i)
    assert all(len(records) * share == pytest.approx(1) for (*_, share), records in stacks.items())
    single, made = {}, {}
    for rule in RULES:
        chosen = every[:, :, operations[0] != "permutation"] if rule == WITHOUT else every
        single[rule] = list(chosen)
        made[rule] = [np.concatenate(chosen[records], axis=1) for records in stacks.values()]
    return single, made


def test_the_document_has_these_rows_and_studies_and_says_what_the_runs_as_made_would_have_saved():
    assert STUDIES == ["paper", "confirm", "surface", "order-x_plus_y", "order-x_div_y"]
    assert [row[0].strip() for row in ROWS] == RULES
    assert all(len(row) == len(HEADINGS) for row in ROWS)
    for (name, rule), cell in SAVED_AS_MADE.items():
        assert f"saved {cell} in `{name}` at {rule.replace(',', '')}, and nothing in all" in " ".join(SAID.split())


@pytest.mark.parametrize("name", STUDIES)
def test_what_ending_early_would_have_saved_is_what_the_records_give(name):
    single, made = logs_of(name)
    stops = {rule: int(rule.split(",")[0]) for rule in RULES}
    assert {rule: saved(single[rule], stops[rule]) for rule in RULES} == said_of(name)
    as_made = {rule: SAVED_AS_MADE.get((name, rule), "0") for rule in RULES}
    assert {rule: saved(made[rule], stops[rule]) for rule in RULES} == as_made
