"""Pages from notebooks: the report of a study, the evidence, and either printed."""

from pathlib import Path

from grok_utils.pipeline.execution import execute, from_notebooks, study_parameter
from grok_utils.pipeline.locks import alone
from grok_utils.studies import Study


def build_page(results: Path, study: Study | None = None, given: str = "", precision: str | None = None) -> Path:
    """Build the study's report.html from its records, or without a study the evidence's; returns the page's path.

    `given` is the name or path that the study was loaded by (default: its name), `precision` what replaced its own.
    Raises Failed on a bad record.
    """
    from grok_utils.page.export import export_html  # nbconvert takes a second to load, which a run need not wait for

    html, notebook, title = page_path(results, study), "evidence.ipynb", None
    parameters: dict[str, object] = {"results": from_notebooks(results)}
    if study:
        notebook, title = "report.ipynb", study.title or study.name
        parameters |= {"study": study_parameter(given or study.name), "precision": precision}
    else:
        print("the evidence: reading all records and judging the claims, a minute or two", flush=True)
    with alone(html.parent, "report"):
        execute(notebook, html.with_suffix(".ipynb"), parameters)
        export_html(html.with_suffix(".ipynb"), html, title)
    return html


def print_page(results: Path, study: Study | None = None, given: str = "", precision: str | None = None) -> Path:
    """Print the page of `build_page`, which is built where it is absent; returns the PDF's path.

    Raises BadInput without Chromium.
    """
    from grok_utils.page.export import find_chromium, print_pdf

    find_chromium()  # told before any work
    html = page_path(results, study)
    if not html.exists():
        build_page(results, study, given, precision)
    with alone(html.parent, "report"):
        print_pdf(html, html.with_suffix(".pdf"))
    return html.with_suffix(".pdf")


def page_path(results: Path, study: Study | None) -> Path:
    """Where the page of a study is, or that of the evidence."""
    return results / (study.name if study else "evidence") / "report.html"
