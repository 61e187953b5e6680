"""results/README.md and the site: made anew they are what is committed, and they name what is there."""

import re
import shutil

import pytest
from bs4 import BeautifulSoup
from support.commands import make
from support.project import ROOT

from grok_utils.__main__ import main
from grok_utils.evidence.index import NOT_KEPT, index, markdown, studies

RESULTS = ROOT / "results"
README = (RESULTS / "README.md").read_text(encoding="utf-8")


def test_it_is_what_the_committed_tables_page_and_records_give():
    assert index(RESULTS) == README


def test_every_study_and_every_folder_with_a_record_is_told():
    rows = studies(RESULTS).set_index("study")
    names = {path.stem for path in (ROOT / "notebooks/studies").glob("*.yaml")} - {NOT_KEPT}
    assert {f"`{name}`" for name in names} == set(rows.index)
    assert {path.parent.parent.name for path in RESULTS.glob("*/records/*.parquet")} - {NOT_KEPT} <= names
    for name in names:
        n = len(list((RESULTS / name / "records").glob("*.parquet")))
        assert re.fullmatch(rf"{n}( of [\d,]+)?", rows.loc[f"`{name}`", "records"]), name
        assert (rows.loc[f"`{name}`", "page"] != "") == (RESULTS / name / "report.html").exists()


def test_it_is_short_and_what_it_names_is_there_for_light_and_for_dark_ground():
    assert len(README.splitlines()) < 120
    links = re.findall(r"\]\(([^)]+)\)", README)
    headings = {f"#{title.lower().replace(' ', '-')}" for title in re.findall(r"^#+ (.+)$", README, re.MULTILINE)}
    assert "evidence/report.html" in links and all(
        link in headings or (RESULTS / link.split("#")[0]).exists() for link in links
    )
    assert "(below)" not in README and len(re.findall(r"^\d\. ", README, re.MULTILINE)) == 4
    pictures = re.findall(r"<picture>(.*)</picture>", README)
    assert len(pictures) == 4
    for picture in pictures:
        dark, light = re.search(r'srcset="(.+)".*<img alt="[^"]{99,}" src="(.+\.svg)"', picture).groups()
        assert dark == light.replace(".svg", "-dark.svg") and (RESULTS / light).exists() and (RESULTS / dark).exists()
    assert "](results/README.md)" in (ROOT / "README.md").read_text(encoding="utf-8").split("## Start")[0]


def test_without_the_tuned_answer_it_begins_with_the_claims_and_names_one_page(tmp_path):
    shutil.copytree(RESULTS / "evidence", tmp_path / "evidence")
    said = index(tmp_path)
    assert "(tuned/" not in said and "survives" not in said
    assert said.split("\n\n")[2].startswith("The rules were written")
    assert "## At the original's rate and decay" in said and "| no. | claim | verdict | n |" in said


def test_it_says_that_the_answer_is_of_one_rate_and_decay_as_the_front_page_does():
    front_lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    ours, front = (" ".join(" ".join(lines).split()) for lines in (README.splitlines(), front_lines))
    said = re.search(r"original's learning rate ([\d.e-]+) and weight decay ([\d.]+) alone", ours)
    there = re.search(r"original's learning rate ([\d.e-]+) and weight decay ([\d.]+) alone", front)
    assert [float(x) for x in said.groups()] == [float(x) for x in there.groups()]


def test_a_table_in_markdown(tmp_path):
    table = studies(RESULTS)[["study", "arms"]].head(1)
    assert markdown(table).splitlines() == ["| study | arms |", "| --- | --- |", "| `confirm` | 13 |"]


def test_the_site_has_every_page_and_an_index_that_asks_for_nothing(tmp_path):
    code, out, err = make("site", OUT=tmp_path / "site", RESULTS=RESULTS)
    assert (code, out, err) == (0, [f"the site: open {tmp_path}/site/index.html"], [])
    page = BeautifulSoup((tmp_path / "site" / "index.html").read_text(encoding="utf-8"), "html.parser")
    links = [a["href"] for a in page.select("main a") if not a["href"].startswith("#")]
    assert page.find(id="section-the-claims-and-their-verdicts") and len(links) < len(page.select("main a"))
    pages = {str(path.relative_to(RESULTS)) for path in RESULTS.glob("*/report.html")} - {f"{NOT_KEPT}/report.html"}
    assert set(links) == pages
    for link in links:
        assert (tmp_path / "site" / link).read_bytes() == (RESULTS / link).read_bytes()
    sources = [t[k] for t in page.select("main :is(img, source)") for k in ("src", "srcset") if t.has_attr(k)]
    assert len(sources) == 8 and all(s.startswith("data:image/svg+xml;base64,") for s in sources)
    assert len(page.select("main table")) == 4 and page.title.get_text().startswith("Does growing")


@pytest.mark.parametrize("lacking", ["README.md", "evidence/report.html"])
def test_a_site_without_its_parts_is_told_in_one_line(tmp_path, capsys, lacking):
    if lacking != "README.md":
        (tmp_path / "README.md").write_text(f"[page]({lacking})", encoding="utf-8")
    assert main(["site", "--results", str(tmp_path), "--out", str(tmp_path / "site")]) == 1
    said = capsys.readouterr().err
    assert said == f"{tmp_path / lacking} is not there: make evidence builds it\n"
