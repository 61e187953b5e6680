"""Debian's Chromium, or whichever is found, driven by Playwright."""

from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright
from support.project import ROOT
from xdist.scheduler import LoadScopeScheduling

from grok_utils.page.build import PAGES
from grok_utils.page.export import FLAGS, find_chromium

RESULTS = ROOT / "results"


class JupyterLabInOne(LoadScopeScheduling):
    """The tests of JupyterLab, each of which goes on from what the one before it left, in one process; others anywhere.

    `--dist loadgroup` parts a group without a word: xdist 3.8 does not reach pytest 9.2 (pytest-dev/pytest-xdist#1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.split("::")[0] if "test_jupyterlab" in nodeid else nodeid


def pytest_xdist_make_scheduler(config, log):
    return JupyterLabInOne(config, log)


@pytest.fixture(scope="session", params=["paper", *PAGES])
def report(request) -> Path:
    """The report of `paper`, and the pages of many studies, as committed: tests/evidence/test_results.py keeps them."""
    return RESULTS / request.param / "report.html"


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, report):
    """A function that opens the report in a window of a width and colour scheme; other options are Playwright's."""
    contexts = []

    def opened(width: int = 1440, scheme: str = "light", **options) -> Page:
        size = {"width": width, "height": 900}
        contexts.append(browser.new_context(viewport=size, color_scheme=scheme, **options))
        page = contexts[-1].new_page()
        page.goto(report.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
