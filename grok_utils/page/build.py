"""Pages from notebooks: the report of a study, the evidence, and either printed."""

from collections.abc import Callable
from pathlib import Path

from grok_utils.pipeline.execution import execute, from_notebooks, study_parameter
from grok_utils.pipeline.locks import alone
from grok_utils.pipeline.plan import planned_runs
from grok_utils.studies import Study


def execute_report(study: Study, results: Path, given: str | None = None, precision: str | None = None) -> Path:
    """Build the study's report from its records; returns the path of the HTML page. Raises Damaged on a bad record.

    `given` is the name or path that the study was loaded by (default: its name), `precision` what replaced its own.
    """
    from grok_utils.page.export import export_html  # nbconvert takes a second to load, which a run need not wait for

    planned_runs(study, results)
    folder = results / study.name
    executed = folder / "report.ipynb"
    parameters = {"study": study_parameter(given or study.name), "results": from_notebooks(results)}
    with alone(folder, "report"):
        execute("report.ipynb", executed, parameters | {"precision": precision})
        export_html(executed, folder / "report.html", study.title or study.name)
    return folder / "report.html"


def execute_evidence(results: Path) -> Path:
    """Build the evidence's page from the records of its studies that exist; returns the path of the HTML page."""
    from grok_utils.page.export import export_html

    executed = results / "evidence" / "report.ipynb"
    print("the evidence: reading all records and judging the claims, a minute or two", flush=True)
    with alone(executed.parent, "report"):
        execute("evidence.ipynb", executed, {"results": from_notebooks(results)})
        export_html(executed, executed.with_suffix(".html"))
    return executed.with_suffix(".html")


def print_report(folder: Path, build: Callable[[], Path]) -> Path:
    """Print the page `folder`/report.html, which `build` makes where it is absent; returns the PDF's path.

    Raises BadInput without Chromium.
    """
    from grok_utils.page.export import find_chromium, print_pdf

    find_chromium()  # told before any work
    html = folder / "report.html"
    if not html.exists():
        build()
    with alone(folder, "report"):
        print_pdf(html, html.with_suffix(".pdf"))
    return html.with_suffix(".pdf")
