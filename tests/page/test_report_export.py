"""The report notebook, executed on a small synthetic study, and the one page it is exported to."""

import getpass
import re
import socket
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from support.project import ROOT
from support.synthetic import crossing as crosses
from support.synthetic import write_study

from grok_utils.analysis import crossings, summaries
from grok_utils.errors import BadInput
from grok_utils.page import build, export, notebook, prose
from grok_utils.pipeline.study_files import load_study
from grok_utils.store import records
from grok_utils.studies import Arm, Study

STUDIES = {
    "like": {"updates": 7500},
    "unlike": {"updates": 200, "measures": ["gradient_noise", "weight_norm"]},
    "order": {
        "updates": 200,
        "arms": {"linear": None, "linear-mean": {"batch_size": {"schedule": "linear", "control": "mean"}}},
    },
}
COMMITS = {"unlike": {"commit": "0123456789" * 4, "dirty": True}, "order": {"commit": "0123456789" * 4, "dirty": False}}
ARMS = {"baseline": None, "linear": None, "constant-128": {"batch_size": 128}}


def crossing(study: Study, arm: Arm, operation: str, seed: int) -> float:
    """Each arm 30 updates sooner than the one before it; nothing reaches 99 % on `permutation`."""
    return np.inf if operation == "permutation" else study.updates // 2 + 10 * seed - 30 * study.arms.index(arm)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Studies of two seeds with their executed notebooks and pages: `like` has the protocol's settings, `unlike` is
    shorter and of a changed tree, `order` has no baseline."""
    results = tmp_path_factory.mktemp("results")
    for name, settings in STUDIES.items():
        settings = {"arms": ARMS, "seeds": [0, 1], "operations": ["x_plus_y", "permutation"]} | settings
        given = results / f"{name}.yaml"
        given.write_text(yaml.safe_dump(settings), encoding="utf-8")
        study = load_study(str(given))
        write_study(results, study, crossing, **COMMITS.get(name, {}))
        build.build_page(results, study, str(given))
    return results


@pytest.fixture(scope="module", params=STUDIES)
def page(results, request) -> BeautifulSoup:
    return BeautifulSoup((results / request.param / "report.html").read_text(encoding="utf-8"), "html.parser")


def bold(table) -> set[tuple[str, ...]]:
    """Operation, arm and heading of each bold cell of a table."""
    headings = [cell.get_text() for cell in table.select("thead th")]
    found = set()
    for row in table.select("tbody tr"):
        cells = row.find_all("td")
        heavy = [heading for heading, cell in zip(headings, cells, strict=True) if cell.b]
        found |= {(cells[0].get_text().replace("\u00a0", " "), cells[1].get_text(), heading) for heading in heavy}
    return found


def test_the_best_cells_are_bold(results):
    page = BeautifulSoup((results / "unlike" / "report.html").read_text(encoding="utf-8"), "html.parser")
    times = bold(page.select_one("#updates-to-99-table"))
    soonest = ("x + y", "linear")  # see `crossing`; on S₅ all are alike, and none is best
    assert times == {(*soonest, "RMST"), (*soonest, "median"), (*soonest, "examples at crossing")}
    differences = bold(page.select_one("#differences"))
    assert differences == {(*soonest, "difference, updates"), (*soonest, "per cent")}
    by_update = {(operation, arm) for operation, arm, _ in bold(page.select_one("#reached-by-update"))}
    assert soonest in by_update and ("x + y", "baseline") not in by_update


def test_a_study_with_measures_shows_each_as_curves_and_at_the_crossing(results):
    page = BeautifulSoup((results / "unlike" / "report.html").read_text(encoding="utf-8"), "html.parser")
    assert "Measures" in [h.get_text() for h in page.select("h2")]
    for name in ("gradient-square", "gradient-trace", "noise-scale", "weight-norm"):
        assert page.select_one(f"#{name} svg") and (results / "unlike" / "figures" / f"{name}.svg").is_file()
    said = page.get_text()
    assert "estimates from the ten gradients of a block" in said  # what is measured, in its own words
    assert "no noise to learn tr Σ from" not in said  # and no more than their first paragraph
    table = pd.read_csv(results / "unlike" / "tables" / "measures-at-crossing.csv")
    linear = table[(table["schedule"] == "linear") & (table["operation"] == "x_plus_y")].iloc[0]
    at = 0.045  # thousandths of 40 and 50 updates, the median
    medians = linear[["gradient_square", "gradient_trace", "weight_norm"]].tolist()
    assert medians == pytest.approx([1 + at, 2 + at, 3 + at])
    assert linear["reached"] == 2 and linear["noise_scale"] == pytest.approx((2 + at) / (1 + at))
    assert table.loc[table["operation"] == "permutation", "weight_norm"].isna().all()
    assert page.select_one("#before-the-touch svg")
    gaps, moved = (pd.read_csv(results / "unlike" / "tables" / f"{name}.csv") for name in ("gaps", "moves"))
    assert gaps["touched"].tolist() == [2, 2, 2, 0, 0, 0] and set(gaps["memorised_at"]) == {10}
    assert "6 of 12 members reach" in page.get_text()
    assert set(moved["measure"]) == {"gradient trace", "weight norm", "noise scale"}
    assert set(moved["operation"]) == {"x_plus_y"} and set(moved["moves"]) == {"cannot tell"}  # of two seeds
    like = BeautifulSoup((results / "like" / "report.html").read_text(encoding="utf-8"), "html.parser")
    assert not {"Measures", "What moves before a member groks"} & {h.get_text() for h in like.select("h2")}


def test_page_asks_nobody_for_anything(results):
    for html in results.glob("*/report.html"):
        text = html.read_text(encoding="utf-8")
        soup = BeautifulSoup(text, "html.parser")
        assert not soup.select("script, link, iframe, object, embed, img:not([src^='data:'])")
        assert not re.findall(r"@import|url\((?!#)|\son\w+=", text)
        assert all(tag["href"].startswith("#") for tag in soup.select("[href]"))
        policy = soup.select_one("meta[http-equiv='Content-Security-Policy']")["content"]
        allowed = ["style-src 'unsafe-inline'", "img-src data:"]
        assert policy.split("; ") == ["default-src 'none'", *allowed, "base-uri 'none'", "form-action 'none'"]
        assert len(text) < 3_000_000


def test_page_names_no_path_user_or_host(results):
    for html in results.glob("*/report.html"):
        text = html.read_text(encoding="utf-8")
        assert not [name for name in (str(results), str(ROOT), str(Path.home()), socket.gethostname()) if name in text]
        assert getpass.getuser() == "root" or getpass.getuser() not in text


def test_folders_are_replaced_and_what_only_begins_like_one_is_not(monkeypatch):
    monkeypatch.setenv("HOME", "/abode/someone")
    text = f"/data/a b/figures /data/a bc {ROOT}/notebooks {sys.prefix}/lib /abode/someone/x /mine/tiny.yaml </p>"
    expected = "results/figures /data/a bc ./notebooks python/lib ~/x studies/tiny.yaml </p>"
    assert export.without_paths(text, Path("/data/a b"), Path("/mine")) == expected
    monkeypatch.setenv("HOME", "/")  # as in a container
    for nowhere in (Path(), Path("/")):  # a study's name is no path
        assert export.without_paths("<p>./a/b.</p>", Path("/data"), nowhere) == "<p>./a/b.</p>"


def test_ids_are_unique_and_every_reference_resolves(page):
    ids = [tag["id"] for tag in page.select("[id]")]
    assert len(ids) == len(set(ids))
    references = [tag["href"][1:] for tag in page.select("[href^='#']")]
    references += [tag["xlink:href"][1:] for tag in page.find_all("use")]
    references += re.findall(r"url\(#([^)]+)\)", str(page))
    assert references and set(references) <= set(ids)


def test_figures_and_tables_are_numbered_described_and_captioned(page):
    for selector, word in {"figure.picture": "Figure", "figure.numbers": "Table"}.items():
        labels = [figure.figcaption.b.get_text() for figure in page.select(selector)]
        assert labels == [f"{word} {i}. " for i in range(1, len(labels) + 1)] and len(labels) >= 6
        assert all(len(figure.figcaption.get_text()) > 15 for figure in page.select(selector))
    for svg in page.find_all("svg"):
        assert svg["role"] == "img" and len(svg["aria-label"]) > 40 and svg.has_attr("viewbox")
    assert all(table.find_parent(class_="scroll") for table in page.find_all("table"))


def test_cross_references_carry_the_numbers_of_what_they_name(page):
    for tag in page.select("main a[href^='#']"):
        target = page.find(id=tag["href"][1:])
        assert tag.get_text() + ". " == target.figcaption.b.get_text()


def test_contents_list_the_sections(page):
    assert [a.get_text() for a in page.select("nav a")] == [h.get_text() for h in page.select("main h2")]
    assert page.title.string in STUDIES and len(page.find_all("h1")) == 1
    assert page.select("body > header > *, nav, main")[0].name == "h1"  # nothing comes before it


def test_code_is_folded_and_whole(results, page):
    assert all(block.find_parent("details") for block in page.select(".highlight"))
    assert not page.select("details[open], .silent")
    executed = nbformat.read(results / "like/report.ipynb", 4)
    code = "".join(block.get_text() for block in page.select("details .highlight"))
    missing = [c.source for c in executed.cells if c.cell_type == "code" and c.source.strip() not in code]
    assert len(missing) <= 1  # papermill's injected parameters name the other study


def test_mathematics_is_mathml(page):
    assert len(page.find_all("math")) > 5
    assert "$" not in "".join(p.get_text() for p in page.select("main p, main li"))


def test_answer_comes_first_with_its_n_and_interval(page):
    answer = page.select_one("main h2").find_next_siblings(["p", "ul"])
    text = " ".join(tag.get_text() for tag in answer[:5]).replace("\u00a0", " ")
    assert page.select_one("main h2").get_text() == "The answer"
    assert "n = 2" in text and "95 %" in text and "So few seeds settle no claim" in text
    cells = [[c.get_text().replace("\u00a0", " ") for c in r.find_all(["th", "td"])] for r in page.select("#answer tr")]
    assert cells[0] == ["arm", "x + y", "S₅"] and [row[0] for row in cells[1:3]] != ["linear", "baseline"]
    assert cells[1][2] == "0 of 2 reach 99 %\n(0 to 84 %)" and cells[2][2] == "cannot tell\n0 of 2 reach 99 % either"
    assert re.fullmatch(r"cannot tell\n−[36]0, −\d+ %\n\(no interval\)", cells[2][1])


def test_a_study_without_baseline_is_compared_with_its_first_arm(results):
    page = BeautifulSoup((results / "order/report.html").read_text(encoding="utf-8"), "html.parser")
    assert "than linear if" in page.select_one("main h2").find_next_sibling("p").get_text()
    table = pd.read_csv(results / "order/tables/differences.csv").set_index(["operation", "schedule"])
    assert list(table.index) == [("x_plus_y", "linear-mean"), ("permutation", "linear-mean")]
    assert table["difference"].tolist() == [-30, 0] and table["n"].eq(2).all()


def test_reported_numbers_stand_beside_or_do_not_apply(results):
    like, unlike = [(results / n / "report.html").read_text(encoding="utf-8") for n in ("like", "unlike")]
    assert 'id="beside-reported-times"' in like and "do not apply" not in like
    assert 'id="beside-reported-times"' not in unlike and "updates 200 instead of 7,500" in unlike
    table = pd.read_csv(results / "like/tables/beside-reported-times.csv")
    assert set(table["schedule"]) == {"baseline", "linear"} and table["n"].eq(2).all()


def test_a_page_says_so_where_records_were_made_with_uncommitted_changes(results):
    like, unlike, order = [(results / n / "report.html").read_text(encoding="utf-8") for n in STUDIES]
    assert "commit 0123456789 with changes." in unlike and "0123456789 with uncommitted changes</td>" in unlike
    assert "commit 0123456789." in order and "with changes" not in order and "uncommitted" not in order
    assert "commit no commit." in like and "with changes" not in like and "uncommitted" not in like


def test_figures_and_tables_are_kept_as_files(results):
    names = {path.stem for path in (results / "like/figures").glob("*.svg")}
    soup = BeautifulSoup((results / "like/report.html").read_text(encoding="utf-8"), "html.parser")
    drawn = {figure["id"] for figure in soup.select("figure.picture")}
    assert names == drawn | {f"{name}-dark" for name in drawn}
    assert {f["id"] for f in soup.select("figure.numbers")} == {p.stem for p in (results / "like/tables").glob("*.csv")}
    cells = pd.read_csv(results / "like/tables/updates-to-99-table.csv").set_index(["operation", "schedule"])
    assert cells.loc[("x_plus_y", "baseline"), "rmst"] == 3755 and np.isnan(
        cells.loc[("permutation", "linear"), "median"]
    )


def test_export_is_repeatable_and_leaves_no_temporary(results):
    again = results / "again.html"
    export.export_html(results / "like/report.ipynb", again, "like")
    assert again.read_bytes() == (results / "like/report.html").read_bytes()
    assert not list(results.rglob("*.part"))


def test_the_report_of_a_grid_shows_each_arm_at_its_best_cell(results, tmp_path, monkeypatch):
    """The notebook's cells, on rows of two cells; `constant-128` is best in the one of the lower rate."""
    plan = load_study(str(results / "unlike.yaml"))
    frame, metadata = records.read_study(plan, results)
    later = frame.groupby(crossings.MEMBER)["val_accuracy"].shift(2, fill_value=np.float32(0.1))
    cells = [
        frame.assign(cell=cell, val_accuracy=frame["val_accuracy"].where(soonest, later))
        for cell, soonest in {
            "learning_rate=0.0005": frame["schedule"] == "constant-128",
            "learning_rate=0.002": frame["schedule"] != "constant-128",
        }.items()
    ]
    monkeypatch.setattr(records, "read_study", lambda plan, results: (pd.concat(cells, ignore_index=True), metadata))
    pictures, numbers, said = {}, {}, []
    monkeypatch.setattr(notebook, "publish", lambda p, name, caption, *a: pictures.update({name: (caption, p.alt)}))
    monkeypatch.setattr(
        notebook, "publish_table", lambda t, name, caption, *a, **k: numbers.update({name: (caption, t)})
    )
    monkeypatch.setattr("IPython.display.display", lambda shown: said.append(shown.data))
    names = {"study": str(results / "unlike.yaml"), "results": str(tmp_path), "precision": None}
    for cell in nbformat.read(ROOT / "notebooks" / "report.ipynb", 4).cells:
        if cell.cell_type == "code" and "parameters" not in cell.metadata.get("tags", []):
            exec(cell.source, names)
    of_all = {"schedules", "grid", "settings", "schedule-facts", "best-cells", "cells", "provenance"}
    captions = {name: caption for shown in (pictures, numbers) for name, (caption, _) in shown.items()}
    assert {name for name, caption in captions.items() if "at its best cell" not in caption} == of_all
    best = numbers["best-cells"][1].set_index(["operation", "schedule"])
    assert best["tried"].eq(2).all() and len(best) == 6 and len(numbers["cells"][1]) == 12
    assert best.loc["x_plus_y", "learning_rate"].tolist() == ["0.002", "0.002", "0.0005"]
    times = numbers["updates-to-99-table"][1].set_index(["operation", "schedule"])
    assert times["rmst"].equals(best["rmst"]) and times.loc["x_plus_y", "rmst"].tolist() == [105, 45, 75]
    assert numbers["differences"][1]["difference"].tolist()[:2] == [-60, -30]  # from the baseline at its best cell
    assert "from 75 (learning_rate=0.0005) to 95" in pictures["grid"][1]
    assert any("Each arm was trained in 2 cells, combinations of learning rate." in words for words in said)


# --- export of small notebooks -------------------------------------------------------------------------------------


def exported(tmp_path: Path, *cells) -> BeautifulSoup:
    path = tmp_path / "some.ipynb"
    nbformat.write(new_notebook(cells=list(cells)), path)
    export.export_html(path, tmp_path / "some.html")
    return BeautifulSoup((tmp_path / "some.html").read_text(encoding="utf-8"), "html.parser")


def figure(name: str):
    svg = '<svg class="plot" viewBox="0 0 1 1"><text>50 %</text></svg>'
    words = {"name": name, "alt": 'A "quoted" <line>', "caption": "At 5 % & more"}
    return new_code_cell(
        "draw()", outputs=[new_output("display_data", {"image/svg+xml": svg}, metadata={"image/svg+xml": words})]
    )


def test_words_are_escaped(tmp_path):
    page = exported(tmp_path, figure("one"))
    assert page.svg["aria-label"] == 'A "quoted" <line>'
    assert page.figcaption.get_text() == "Figure 1. At 5\u00a0% & more"


def test_no_line_ends_within_a_number_or_an_operation(tmp_path):
    page = exported(tmp_path, new_markdown_cell("On x + y, x³ + xy² + y and S₅, 5 % of n = 3 (a + b)"))
    assert page.main.p.get_text().replace("\u00a0", "_") == "On x_+_y, x³_+_xy²_+_y and S₅, 5_% of n_=_3 (a + b)"


def test_a_reference_to_nothing_is_an_error(tmp_path):
    with pytest.raises(BadInput, match=r"#two, which the page lacks: it has section-one, one$"):
        exported(tmp_path, new_markdown_cell("# One\n\nSee [Figure](#two)."), figure("one"))
    assert not (tmp_path / "some.html").exists()


def test_two_figures_of_one_name_are_an_error(tmp_path):
    with pytest.raises(BadInput, match=r"'one' is already that of Figure 1: give it another in the notebook$"):
        exported(tmp_path, figure("one"), figure("one"))


def test_a_formula_that_is_none_is_an_error(tmp_path):
    with pytest.raises(BadInput, match=r"^formula: \\nosuch\{x\} is not TeX that math_core knows: correct it in the"):
        exported(tmp_path, new_markdown_cell("# One\n\nOf $\\nosuch{x}$."))


def test_headings_title_and_references(tmp_path):
    page = exported(
        tmp_path, new_markdown_cell("# Über $x^2$\n\n## A: b?\n\n## A: b?\n\nSee [Figure](#one)."), figure("one")
    )
    assert [h["id"] for h in page.find_all("h2")] == ["section-a-b", "section-a-b-again"]
    assert page.title.string.startswith("Über") and page.select_one("main p a").get_text() == "Figure 1"
    assert page.h1.find("math")


def test_what_a_warning_says_stays_in_the_notebook(tmp_path):
    outputs = [
        new_output("stream", name="stderr", text=f"{ROOT}/x.py: warning"),
        new_output("stream", name="stdout", text=f"{ROOT}/<y>"),
    ]
    page = exported(tmp_path, new_code_cell("f()", outputs=outputs))
    assert page.main.pre.get_text() == "./<y>" and "warning" not in str(page.main)


# --- sentences -----------------------------------------------------------------------------------------------------


def members_of(times: dict[str, list[int]]) -> pd.DataFrame:
    frames = [crosses(s, t, a, logs=20) for a, of in times.items() for s, t in enumerate(of)]
    return crossings.crossings(pd.concat(frames))


def say(times: dict[str, list[int]]) -> tuple[str, dict[str, str]]:
    """The answer in words, and what its table says of each arm on x + y."""
    members = members_of(times)
    of = summaries.summarise(members), summaries.paired_differences(members)
    return prose.answer(*of), prose.answer_table(*of).set_index("arm")["x_plus_y"].to_dict()


def test_answer_says_which_arm_is_sooner_and_by_how_much():
    text, table = say({"baseline": [100, 110, 120, 130, 140], "linear": [50, 60, 70, 80, 100]})
    assert "In 1 comparison with `baseline`, an arm is sooner in 1.**" in text
    assert table["linear"] == "sooner\n−48, −40 %\n(−54 to −42)" and "(n = 5)" in text
    assert table["baseline"] == "120\n(100 to 140)\n5 of 5 reach 99 %"
    assert "settle no claim" not in text


def test_answer_says_so_when_nothing_can_be_told():
    text, table = say({"baseline": [100, 120], "linear": [90, 140], "cyclic": [999, 999]})
    assert "In 2 comparisons with `baseline`, one can never tell which is sooner" in text
    assert table["linear"].startswith("cannot tell\n") and "n = 2" in text and "settle no claim" in text
    assert table["cyclic"].startswith("cannot tell\n")


def test_formulas_are_those_of_the_functions_docstrings(monkeypatch):
    def mine(s, T, lo, hi):
        r"""$b_0 + p$ or so

        More words."""

    monkeypatch.setattr(prose, "SCHEDULES", {"mine": mine, "plain": lambda s, T, lo, hi: lo})
    assert prose.schedule_formulas(["mine", "plain"]) == "- `mine`: $b_0 + p$ or so\n- `plain`: a function of its own"


def test_answer_without_baseline():
    text, table = say({"linear": [90, 140]})
    assert text.startswith("There are no pairs of seeds yet") and table == {
        "linear": "115\n(0 to 200)\n2 of 2 reach 99 %"
    }
