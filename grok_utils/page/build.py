"""Pages from notebooks: the report of a study, the claims, the tuned answer, any printed, and all of them as a site."""

import base64
import re
import shutil
import tempfile
from pathlib import Path

from grok_utils.errors import Damaged
from grok_utils.pipeline.execution import execute, from_notebooks, study_parameter
from grok_utils.pipeline.kernel import Kernel
from grok_utils.pipeline.locks import alone
from grok_utils.studies import Study

# Tables of Markdown, which no page of a notebook has: their texts wrap, and a phone scrolls them.
OF_INDEX = "main > table { display: block; overflow-x: auto; } main > table td { white-space: normal; }"
PAGES = ("evidence", "tuned")  # of many studies, by their folders and their notebooks


def build_page(
    results: Path, of: Study | str, given: str = "", precision: str | None = None, kernel: Kernel | None = None
) -> Path:
    """Build the report.html of a study, or of one of PAGES, from its records; returns the page's path.

    `given` is the name or path that the study was loaded by (default: its name), `precision` what replaced its own,
    `kernel` what executes the notebook (default: a new one). Raises Failed on a bad record.
    """
    from grok_utils.page.export import export_html  # nbconvert takes a second to load, which a run need not wait for

    html, title = page_path(results, of), None
    parameters: dict[str, object] = {"results": from_notebooks(results)}
    if isinstance(of, Study):
        notebook, title = "report.ipynb", of.title or of.name
        parameters |= {"study": study_parameter(given or of.name), "precision": precision}
    else:
        notebook = f"{of}.ipynb"
        print(f"{of}: reading the records of its studies and judging them, a minute or so")
    with alone(html.parent, "report"):
        execute(notebook, html.with_suffix(".ipynb"), parameters, kernel)
        export_html(html.with_suffix(".ipynb"), html, title)
    return html


def print_page(results: Path, of: Study | str, given: str = "", precision: str | None = None) -> Path:
    """Print the page of `build_page`, built where absent; returns the PDF's path. Raises BadInput without Chromium."""
    from grok_utils.page.export import find_chromium, print_pdf

    find_chromium()  # told before any work
    html = page_path(results, of)
    if not html.exists():
        build_page(results, of, given, precision)
    with alone(html.parent, "report"):
        print_pdf(html, html.with_suffix(".pdf"))
    return html.with_suffix(".pdf")


def build_site(results: Path, folder: Path) -> Path:
    """Collect in `folder` the pages that README.md of `results` links to, with it as index.html; returns that path.

    Raises Damaged where README.md, a page or a figure of it is absent.
    """
    import nbformat

    from grok_utils.page.export import export_html

    def inline(file: re.Match[str]) -> str:
        data = base64.b64encode((results / file[0]).read_bytes()).decode()
        return f"data:image/svg+xml;base64,{data}"

    try:
        text = (results / "README.md").read_text(encoding="utf-8")
        for page in dict.fromkeys(re.findall(r"\]\(([\w./-]+\.html)\)", text)):
            (folder / page).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(results / page, folder / page)
        text = text.replace("](#", "](#section-")  # as `name_headings` has it
        text = re.sub(r'(?<=")[\w./-]+\.svg(?=")', inline, text)  # the pages' policy allows no file beside them
    except FileNotFoundError as error:
        raise Damaged(f"{error.filename} is not there: make evidence builds it") from None
    cell = nbformat.v4.new_markdown_cell(f"{text}\n<style>{OF_INDEX}</style>\n")
    with tempfile.TemporaryDirectory() as temporary:
        notebook = Path(temporary, "index.ipynb")
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebook)
        export_html(notebook, folder / "index.html")
    return folder / "index.html"


def page_path(results: Path, of: Study | str) -> Path:
    """Where the page of a study is, or one of PAGES."""
    return results / (of.name if isinstance(of, Study) else of) / "report.html"
