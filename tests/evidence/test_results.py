"""The committed results: their records are whole, and their tables are what the records give."""

import json
import re
import shutil
from dataclasses import replace

import nbformat
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from bs4 import BeautifulSoup
from support.project import ROOT

from grok_utils.page import tables
from grok_utils.page.build import PAGES, build_page
from grok_utils.pipeline.study_files import load_study, make_study
from grok_utils.store.records import makings, read_like, read_study
from grok_utils.studies import Run, runs_of
from grok_utils.tasks import written

COMMITTED = sorted(p.parent for p in ROOT.glob("results/*/records") if p.parent.name != "quick")
REPORTED = [folder for folder in COMMITTED if (folder / "tables").exists()]


def words_of(page):
    """A page without its numbers, whose last digits another machine may round otherwise."""
    text = page.read_text(encoding="utf-8").replace('"../results"', '"results"')
    return re.sub(r"[-−\d.]+", "#", text).split("\n")


@pytest.mark.parametrize("folder", REPORTED, ids=lambda p: p.name)
def test_tables_and_figures_are_what_the_records_give(folder, tmp_path):
    study = load_study(folder.name)
    shutil.copytree(folder / "records", tmp_path / folder.name / "records")
    build_page(tmp_path, study)
    made = {p.name: p for p in (tmp_path / folder.name / "tables").glob("*.csv")}
    assert sorted(made) == sorted(p.name for p in (folder / "tables").glob("*.csv"))
    for name, path in made.items():
        pd.testing.assert_frame_equal(pd.read_csv(path), pd.read_csv(folder / "tables" / name), rtol=1e-6)
    figures = sorted(p.name for p in (folder / "figures").glob("*.svg"))
    assert figures == sorted(p.name for p in (tmp_path / folder.name / "figures").glob("*.svg"))
    assert words_of(tmp_path / folder.name / "report.html") == words_of(folder / "report.html")


@pytest.mark.parametrize("name", ["paper", *PAGES])
def test_a_page_begins_with_its_title_its_days_and_its_commit(name):
    page = BeautifulSoup((ROOT / "results" / name / "report.html").read_text(encoding="utf-8"), "html.parser")
    title, said = page.select("body > header > *")
    assert title.name == "h1" and title.get_text().startswith("Does ") and page.title.string
    day = r"\d{4}-\d\d-\d\d"
    commits = r"commit [0-9a-f]{10}\b|from \d+ commits \(Table \d+\)"
    assert re.search(rf"[Tt]rained {day}( to {day})?, ({commits})", said.get_text().replace("\u00a0", " "))


SHOWN_BESIDE = ("small",)  # a study of no page


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda p: p.name)
def test_the_study_is_complete_and_made_from_a_commit(folder):
    study = load_study(folder.name)
    records = [run.record(seed) for run in runs_of(study, folder.parent) for seed in study.seeds]
    made = makings([json.loads(pq.read_schema(path).metadata[b"grok_utils"]) for path in records])
    assert all(m["commit"] and m["dirty"] is not None for m in made)
    told = tables.provenance(made).set_index("item")["value"]["commit"]  # what the page repeats
    assert ("with uncommitted changes" in told) == any(m["dirty"] for m in made)
    # Every row of every record is read, and its checksum compared, where the page that it carries is built anew.
    alone = replace(study, seeds=study.seeds[: None if folder.name in SHOWN_BESIDE else 1])
    frame, _ = read_study(alone, folder.parent)
    first = frame[frame["seed"] == study.seeds[0]].sort_values("update").groupby(["schedule", "operation", "cell"])
    assert len(first) == sum(len(arm.members((0,))) for arm in study.arms)
    for arm in study.arms:
        for name in ("batch_size", "learning_rate", "weight_decay"):
            for (operation, cell), course in arm.courses(name, study.updates).items():
                recorded = first.get_group((arm.name, operation, cell.name))[name]
                assert np.allclose(recorded, course, rtol=1e-12, atol=0)


def test_explore_ipynb_as_it_stands_has_committed_records_to_compare_with():
    cells = nbformat.read(ROOT / "notebooks" / "explore.ipynb", as_version=4).cells
    names = {}
    exec(next(cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])), names)
    exec(
        next(cell.source for cell in cells if "setting = " in cell.source).split("arms = ")[0].split("\n\n")[-1], names
    )
    study = make_study("explore", {"schedules": ["baseline"], "seeds": [names["seed"]], **names["setting"]})
    committed = read_like(ROOT / "notebooks" / names["committed"], Run(study, study.arm("baseline"), study.seeds))
    rows = pd.concat(committed)
    small = load_study("small")
    assert set(rows.schedule) == {arm.name for arm in small.arms}
    assert names["seed"] in set(rows.seed) == set(small.seeds)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_many_studies_is_what_the_records_give(name, tmp_path):
    folder, built = ROOT / "results" / name, tmp_path / name
    for part in ROOT.glob("results/*/"):  # of the page of the claims, that of the tuned answer reads the tables
        if part != folder:
            (tmp_path / part.name).symlink_to(part)
    build_page(tmp_path, name)
    made = {p.name: p for p in (built / "tables").glob("*.csv")}
    assert made and sorted(made) == sorted(p.name for p in (folder / "tables").glob("*.csv"))
    for table, path in made.items():
        pd.testing.assert_frame_equal(pd.read_csv(path), pd.read_csv(folder / "tables" / table), rtol=1e-6)
    figures = sorted(p.name for p in (folder / "figures").glob("*.svg"))
    assert figures and figures == sorted(p.name for p in (built / "figures").glob("*.svg"))
    assert words_of(built / "report.html") == words_of(folder / "report.html")


BEST = {
    "dose-response-table": ("rmst", "RMST"),
    "stability-table": ("share_below", "share of later logs below"),
    "cost": ("updates", "updates"),
    "differences": ("difference", "difference, updates"),
    "by-examples": ("difference", "difference, examples"),
}


@pytest.mark.parametrize("table", BEST)
def test_the_best_cell_of_each_operation_is_bold_on_the_committed_page(table):
    column, heading = BEST[table]
    folder = ROOT / "results" / "evidence"
    frame = pd.read_csv(folder / "tables" / f"{table}.csv")
    best = frame[frame[column] == frame.groupby("operation")[column].transform("min")]
    page = BeautifulSoup((folder / "report.html").read_text(encoding="utf-8"), "html.parser")
    at = [cell.get_text() for cell in page.select(f"#{table} thead th")].index(heading)
    cells = [row.find_all("td") for row in page.select(f"#{table} tbody tr")]
    heavy = {(row[0].get_text().replace("\u00a0", " "), row[1].get_text()) for row in cells if row[at].b}
    assert heavy == set(zip(best["operation"].map(written), best["schedule"], strict=True))
