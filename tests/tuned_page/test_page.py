"""The page of the tuned answer, executed on a small world of all its stages."""

import shutil
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from support.project import ROOT
from support.stages import write_stages

from grok_utils.page.export import export_html
from grok_utils.pipeline.execution import execute

SECTIONS = [
    "The answer",
    "What it means for the original's claims",
    "How tuning was done, and what it cost",
    "The law: the time of grokking in rate and decay",
    "Steps and examples",
    "Shapes",
    "Controls",
    'Permutation, which "did not grok"',
    "What to set, in what order, at what price",
    "A theoretical reading",
    "Methods and limits",
    "The numbers in full",
    "Where the numbers come from",
]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path]:
    """Study files and results of a world in which schedules take longer, and the tables of the page of the claims."""
    studies, results = write_stages(tmp_path_factory.mktemp("world"))
    shutil.copytree(ROOT / "results" / "evidence" / "tables", results / "evidence" / "tables")
    return studies, results


@pytest.fixture(scope="module")
def page(world) -> BeautifulSoup:
    """The page on all of it."""
    studies, results = world
    notebook = results / "tuned" / "report.ipynb"
    execute("tuned.ipynb", notebook, {"results": str(results), "studies": str(studies)})
    export_html(notebook, notebook.with_suffix(".html"))
    return BeautifulSoup(notebook.with_suffix(".html").read_text(encoding="utf-8"), "html.parser")


def section(page: BeautifulSoup, title: str) -> str:
    """The text of a section."""
    heading = next(tag for tag in page.select("h2") if tag.get_text() == title)
    told = []
    for tag in heading.find_next_siblings():
        if tag.name == "h2":
            break
        told.append(tag.get_text())
    return "\n".join(told).replace("\u00a0", " ")


def test_it_has_every_section_and_waits_for_nothing(page):
    assert [tag.get_text() for tag in page.select("h2")] == SECTIONS
    assert "Not known yet" not in page.get_text()


def test_it_leads_to_the_page_of_the_claims_and_nowhere_else(page):
    assert {a["href"] for a in page.select("a") if not a["href"].startswith("#")} == {"../evidence/report.html"}


def test_where_schedules_take_longer_none_beats_the_constants(page):
    said = section(page, "The answer")
    assert "No: with rate and decay tuned for each, no schedule of the batch size that was tried beats" in said
    assert "(constant-1024, 95 % interval" in said and "n = 8" in said
