"""Export of an executed notebook to one HTML page without address or script, mathematics as MathML; and its print."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

import nbformat
from bs4 import BeautifulSoup
from math_core import LatexError, LatexToMathML
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from grok_utils.errors import BadInput, Failed, one_line
from grok_utils.store.files import NOTEBOOKS, ROOT, write_text, written_whole

TOGETHER = re.compile(r" (?=%|= )|(?<= =) |(?<=[xy²³]) (?=[+−/] [xy])|(?<=[xy²³] [+−/]) (?=[xy])")  # spaces
MATHEMATICS = LatexToMathML()
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
ON_MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
# No first-run page, and no address asked on the browser's own account.
OFF = ("gpu", "quic", "sync", "background-networking", "component-update")
FLAGS = ("--no-first-run", *(f"--disable-{what}" for what in OFF))
SECONDS = 120  # until a print that hangs is ended
OTHERWISE = "try another one by CHROMIUM=/path/to/it, or open the page in any browser and print it there"


class Renderer(IPythonRenderer):
    """Markdown to HTML with TeX as MathML; raises BadInput on TeX that math_core does not know."""

    def inline_math(self, body: str) -> str:
        try:
            return MATHEMATICS.convert_with_local_state(body, displaystyle=False)
        except LatexError:  # whose words are a drawing in colours
            said = f"formula: {one_line(body)} is not TeX that math_core knows"
            raise BadInput(f"{said}: correct it in the notebook") from None


def export_html(executed_notebook: Path, html: Path, title: str | None = None) -> None:
    """Write `executed_notebook` as one page to `html`, whole or not at all.

    `title` is the page's (default: its first heading). BadInput where the prose refers to something absent.
    """
    notebook = nbformat.read(executed_notebook, as_version=4)
    exporter = HTMLExporter(template_name="template", extra_template_basedirs=[str(NOTEBOOKS)])
    markdown = MarkdownWithMath(renderer=Renderer(escape=False, exclude_anchor_links=True))
    exporter.register_filter("markdown2html", markdown.render)
    text, _ = exporter.from_notebook_node(notebook)
    page = BeautifulSoup(text, "html.parser")
    page.select("title")[0].string = title or (page.h1.get_text() if page.h1 else executed_notebook.stem)
    join_code(page)
    keep_together(page)
    labels = name_headings(page) | number(page, "figure.picture", "Figure") | number(page, "figure.numbers", "Table")
    link(page, labels)
    list_contents(page)
    put_title_first(page)
    study = notebook.metadata.get("papermill", {}).get("parameters", {}).get("study", "")
    write_text(html, without_paths(str(page), executed_notebook.resolve().parent.parent, Path(study).parent))


def join_code(page: BeautifulSoup) -> None:
    """Fold the code of a cell that shows nothing together with that of the next one."""
    for silent in page.select("details.silent"):
        if following := silent.find_next("details"):
            following.select("summary")[0].insert_after(*silent.find_all("div", recursive=False))
            silent.decompose()


def keep_together(page: BeautifulSoup) -> None:
    """Let no line end between a number and its per cent sign, round an equals sign, or within an operation."""
    for string in page.select("main")[0].find_all(string=TOGETHER):
        if not string.find_parent(["pre", "code", "svg"]):
            string.replace_with(TOGETHER.sub("\u00a0", string))


def name_headings(page: BeautifulSoup) -> dict[str, str]:
    """Give each heading an id made of its words; returns the words by id."""
    labels: dict[str, str] = {}
    for tag in page.select("main :is(h1, h2, h3, h4)"):
        words = tag.get_text().strip()
        name = "-".join(["section", *"".join(c if c.isalnum() else " " for c in words.lower()).split()])
        while name in labels:
            name += "-again"
        tag["id"] = name
        labels[name] = words
    return labels


def number(page: BeautifulSoup, selector: str, word: str) -> dict[str, str]:
    """Number the figures or tables through their captions; returns their labels by id."""
    labels: dict[str, str] = {}
    for i, figure in enumerate(page.select(selector), start=1):
        if (name := str(figure["id"])) in labels:
            taken = f"{word} {i}: the name {name!r} is already that of {labels[name]}"
            raise BadInput(f"{taken}: give it another in the notebook")
        labels[name] = f"{word} {i}"
        figure.select("figcaption")[0].insert(0, page.new_tag("b", string=f"{word} {i}. "))
    return labels


def link(page: BeautifulSoup, labels: dict[str, str]) -> None:
    """Give each reference `[Figure](#name)` or `[Table](#name)` its number. BadInput where there is no such name."""
    for tag in page.select('main a[href^="#"]'):
        name = tag["href"][1:]
        if name not in labels:
            raise BadInput(f"the text refers to #{name}, which the page lacks: it has {', '.join(labels)}")
        if tag.get_text() in ("Figure", "Table"):
            tag.string = labels[name]


def list_contents(page: BeautifulSoup) -> None:
    """Fill the table of contents with the sections' headings."""
    contents = page.select("nav ol")[0]
    for section in page.select("main h2"):
        item = page.new_tag("li")
        item.append(page.new_tag("a", href=f"#{section['id']}", string=section.get_text()))
        contents.append(item)


def put_title_first(page: BeautifulSoup) -> None:
    """Move the title and the paragraph below it before the contents, where a narrow window shows them."""
    if page.h1:
        header = page.new_tag("header")
        header.extend(page.select("h1:first-of-type, h1:first-of-type + p"))
        page.select("nav")[0].insert_before(header)


def without_paths(text: str, results: Path, studies: Path) -> str:
    """The text without this machine's folders, which a page that is mailed does not name.

    Such are the folder of all results and, where a study is given by its file, that of the file.
    """
    names = {str(studies): "studies", os.path.expanduser("~"): "~", sys.prefix: "python"}
    names |= {str(results): "results", str(ROOT): "."}
    for path in sorted(names, key=len, reverse=True):
        if len(Path(path).parts) > 1:  # a container's home may be /
            text = re.sub(rf"{re.escape(escape(path))}(?![\w-])", names[path], text)
    return text


# --- printing --------------------------------------------------------------------------------------------------------


def find_chromium() -> str:
    """The path of Chromium or a relative of it: CHROMIUM of the environment, or the first found. Raises BadInput."""
    asked = os.environ.get("CHROMIUM")
    for name in [asked] if asked else [*NAMES, ON_MACOS]:
        if found := shutil.which(name):
            return found
    what = f"CHROMIUM: {asked!r} is no program" if asked else "Chromium was not found"
    raise BadInput(f"{what}: install it (Debian: apt-get install chromium) or give CHROMIUM=/path/to/chrome")


def print_pdf(html: Path, pdf: Path) -> None:
    """Print the page `html` to `pdf`, whole or not at all. Raises BadInput without Chromium, Failed if it fails."""
    chromium = find_chromium()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, written_whole(pdf) as temporary:
        command = [chromium, "--headless", *FLAGS, f"--user-data-dir={profile}", "--no-pdf-header-footer"]
        command.append("--generate-pdf-document-outline")  # the contents are not printed; a viewer lists the headings
        if hasattr(os, "geteuid") and os.geteuid() == 0:  # Chromium's sandbox refuses root
            command.append("--no-sandbox")
        command += [f"--print-to-pdf={temporary.resolve()}", html.resolve().as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"{chromium} did not print {html} within {SECONDS} seconds: {OTHERWISE}") from None
        except OSError as error:  # a program of another machine, say
            raise Failed(f"{chromium} cannot be started ({error.strerror}): {OTHERWISE}") from None
        if done.returncode or not temporary.is_file():
            said = done.stderr.strip().splitlines() or ["no reason given"]
            raise Failed(f"{chromium} did not print {html} ({said[-1][:300]}): {OTHERWISE}")
