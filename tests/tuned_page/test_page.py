"""The page of the tuned answer, executed on a small world of all its stages."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from support.project import ROOT
from support.stages import FASTEST, ON, write_stages
from support.synthetic import crossing

from grok_utils.__main__ import main
from grok_utils.errors import Damaged
from grok_utils.evidence import index
from grok_utils.evidence.members import STUDIES
from grok_utils.page import build
from grok_utils.page.export import export_html
from grok_utils.pipeline.execution import execute
from grok_utils.pipeline.study_files import load_study
from grok_utils.store.records import read_study
from grok_utils.studies import runs_of
from grok_utils.tuned import choices
from grok_utils.tuned_page import answer, further, laws, reading, words
from grok_utils.tuned_page.further import S5
from grok_utils.tuned_page.reading import CONTROLS, Tuned, read_tuned

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
    (results / "confirm").symlink_to(ROOT / "results" / "confirm")
    usual = {o: 25 + 1.5 * FASTEST[o] for o in ON}  # of batch 512 at τ = 125, as this world has it
    rows = [(o, run, t * r) for o, t in usual.items() for run, r in enumerate([0.95, 1.0, 1.05, 2 if o == S5 else 1])]
    original = pd.DataFrame(rows, columns=["operation", "run", "updates"])
    original.to_csv(results / "oracle" / "original.csv", index=False)
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


def test_it_has_every_section(page):
    assert [tag.get_text() for tag in page.select("h2")] == SECTIONS


def test_it_leads_to_the_page_of_the_claims_and_nowhere_else(page):
    assert {a["href"] for a in page.select("a") if not a["href"].startswith("#")} == {"../evidence/report.html"}


def test_figures_are_as_wide_as_the_column(page):
    drawn = page.select("figure.picture svg")
    assert len(drawn) >= 5
    assert [svg for svg in drawn if not svg.find_parent(class_="wide")] == []


def test_figures_say_which_value_each_shade_is(page, world):
    edges = laws.edges(read_tuned(world[1], world[0])).dropna(subset=["reach"])
    for name, values in {"edges": edges["at"], "collapse": edges["batch"]}.items():
        words = {tag.get_text().strip() for tag in page.select(f"#{name} svg text")}
        assert {f"{value:,g}" for value in values} <= words, name


def test_where_schedules_take_longer_none_beats_the_constants(page):
    said = section(page, "The answer")
    assert (
        "No: with rate and decay tuned for each, no schedule of the batch size is shown to beat the constant ones."
        in said
    )
    assert "95 % interval" in said and "it is sooner in none and later in " in said
    answer = page.select_one("#answer-table").get_text()
    assert answer.count("constant-1024: ") == 7


def test_the_fits_find_the_worlds_own_law_and_critical_batch_size(page, world):
    tables = world[1] / "tuned" / "tables"
    law = pd.read_csv(tables / "law.csv")
    assert len(law) == 6 and (law["product_low"] < -0.49).all() and (law["product_high"] > -0.51).all()
    assert law["product_alone"].all() and law["gamma"].dropna().between(0.45, 0.55).all()
    steps = pd.read_csv(tables / "steps.csv").query("form == 'hyperbola' and coefficient == 'B_c'")
    assert set(steps["stage"]) == {"stage 3", "stage 2, selection redone"} and len(steps) == 7
    assert steps["estimate"].between(220, 300).all()  # of 256, and times are whole blocks of 10 updates
    said = section(page, "Steps and examples")
    assert "So, by the plan, it does not predict" in said  # the synthetic measures' noise scale is some two examples


def test_prices_are_of_the_same_means_and_the_cheapest_are_bold(page, world):
    prices = pd.read_csv(world[1] / "tuned" / "tables" / "prices.csv")
    for operation, rows in prices.groupby("operation"):
        assert rows.set_index("schedule")["updates"].idxmin() == "constant-1024", operation
        assert rows.set_index("schedule")["examples"].idxmin() == "constant-64"
    said = section(page, "What to set, in what order, at what price")
    assert "Leave the batch size constant" in said and "that are cheapest in one cost" in said
    assert {row.td.find_next_sibling().get_text() for row in page.select("#prices tr:has(b)")} == {
        "constant-64",
        "constant-1024",
    }


def test_limits_are_the_highest_at_the_smallest_and_the_largest_batch():
    rows = [("rate", 32, [0.0005, 0.001]), ("rate", 512, [0.032]), ("rate", 2048, [0.016, np.nan])]
    rows += [("decay", 32, [4]), ("decay", 2048, [2, 1])]
    edges = pd.DataFrame(rows, columns=["of", "batch", "reach"]).explode("reach").astype({"reach": float})
    never = edges.assign(operation="x_div_y", reach=edges["reach"].where(edges["batch"] > 32))
    limits = laws.limits(pd.concat([never, edges.assign(operation="x_plus_y")]))
    assert limits.fillna("–").to_numpy().tolist() == [
        ["rate", "x_plus_y", "0.001", "0.016"],
        ["rate", "x_div_y", "–", "0.016"],
        ["decay", "x_plus_y", "4", "2"],
        ["decay", "x_div_y", "–", "2"],
    ]
    said = "the largest bears a higher rate on 1 of 2 operations and a higher decay on 0 of 2 operations ([Table]"
    assert said in laws.edge_line(limits)


def test_a_control_that_turns_the_order_of_the_constants_is_told_from_one_that_leaves_it(world, page):
    controls = pd.read_csv(world[1] / "tuned" / "tables" / "controls.csv", index_col=["control", "operation"])
    both = ["x_plus_y", "x_div_y"]
    assert controls["order as tuned"].to_dict() == (
        {(c, o): "– / –" for c in ("as-tuned", "rate-follows") for o in both}
        | {("x³ + xy", "x3_plus_xy"): "– / –"}
        | {("beta2-0.995", o): "no / no" for o in both}
        | {("width-64", o): "yes / yes" for o in both}
    )
    said = section(page, "Controls")
    assert "By kept, 2 of 4 pairs of a control and an operation leave the constants' order as tuned" in said
    assert "On x³ + xy, at the common cells alone, the soonest constant is constant-1024 by touch" in said


def test_controls_are_compared_at_the_soonest_of_all_cells_each_with_its_own(world):
    members = choices.outcomes(read_study(load_study(str(world[0] / "controls.yaml")), world[1])[0])
    none = pd.DataFrame()
    table = further.controls(Tuned(none, {}, {CONTROLS: members}, none, {}, none, []))
    by = table.set_index(["control", "operation", "schedule", "outcome"]).sort_index()
    at = by.loc["rate-follows", "x_plus_y", "linear", "touch"]
    members = members[(members["operation"] == "x_plus_y") & (members["outcome"] == "touch")]
    follows = members[members["schedule"].str.startswith("linear-rate-follows-")].fillna({"updates": np.inf})
    soonest = follows.groupby(["schedule", "weight_decay"])["updates"].median()
    assert at["tried"] == len(soonest) == 9 and at["median"] == soonest.min()
    assert f"linear-rate-follows-{at['learning_rate']:g}" == soonest.idxmin()[0]
    assert at["ratio"] == at["median"] / by.loc["as-tuned", "x_plus_y", "linear", "touch"]["median"]
    large, usual = (by.loc["beta2-0.995", "x_plus_y", arm, "touch"]["median"] for arm in ("constant-1024", "baseline"))
    assert by.loc["beta2-0.995", "x_plus_y", "constant-1024", "touch"]["ratio"] == large / usual > 1
    assert (by.loc["x3_plus_xy", "edge"] == "").all()
    never = members.assign(reached=False, updates=np.nan).where(members["schedule"] == "baseline-width-64", members)
    lost = further.controls(Tuned(none, {}, {CONTROLS: never}, none, {}, none, [])).query("control == 'width-64'")
    assert lost["ratio"].isna().all()  # nothing is over 512's median where 512 never groks
    assert further.controls_table(lost)["baseline"].str.startswith("never").all()


@pytest.mark.parametrize(
    ("medians", "kept"),
    [
        ([300, 200, 100], "yes"),
        ([300, 200, 200], "yes"),
        ([200, 300, 100], "soonest only"),
        ([100, 200, 300], "no"),
        ([np.inf, 200, 100], "yes"),
        ([np.inf, np.inf, 100], "–"),
    ],
)
def test_equal_medians_keep_an_order_and_two_that_never_grok_have_none(medians, kept):
    arms = {"schedule": ["constant-128", "baseline", "constant-1024"], "median": medians, "tuned": [30.0, 20.0, 10.0]}
    table = pd.DataFrame(arms).assign(control="sgd", operation="x_plus_y", outcome="touch")
    assert further.orders(table).tolist() == [kept]


def test_without_every_record_there_is_no_answer_and_one_line_names_what_lacks(world, tmp_path):
    studies, results = world
    but = shutil.ignore_patterns("tuned", "baseline-seed3015.parquet")
    shutil.copytree(results, tmp_path / "results", symlinks=True, ignore=but)
    with pytest.raises(Damaged, match=r"waits for `tuned-2000-60` \(143 of 144 records\)$"):
        read_tuned(tmp_path / "results", studies)


def test_what_is_read_ahead_is_read_once_and_a_page_that_is_not_read_says_why_itself(world, tmp_path, monkeypatch):
    studies, results = world
    reading.read_ahead(results, studies)
    with monkeypatch.context() as patched:
        patched.setattr(reading, "read_study", None)
        assert len(read_tuned(results, studies).metadata)
        with pytest.raises(TypeError):  # what changes later is read
            read_tuned(results, studies)
    reading.read_ahead(tmp_path, studies)
    with pytest.raises(Damaged, match="waits for"):
        read_tuned(tmp_path, studies)


@pytest.mark.parametrize("there", [(), STUDIES], ids=["nothing", "the claims"])
def test_evidence_builds_what_it_can_and_says_for_what_the_next_page_waits(tmp_path, monkeypatch, capsys, there):
    for run in (run for name in there for run in runs_of(load_study(name), tmp_path)):
        for seed in run.study.seeds:
            run.record(seed).parent.mkdir(parents=True, exist_ok=True)
            run.record(seed).touch()
    built = []
    monkeypatch.setattr(build, "build_page", lambda results, name, kernel: built.append(name) or results / name)
    monkeypatch.setattr(index, "index", lambda results: "the results\n")
    assert main(["evidence", "--results", str(tmp_path)]) in (0, None)
    told = capsys.readouterr().out.splitlines()
    assert built == (["evidence"] if there else [])
    page, first = ("tuned", r"`surface` \(0 of 21") if there else ("evidence", r"`confirm` \(0 of 390")
    assert re.match(rf"{page}: no page yet, it waits for {first} records\), ", told[-1])
    assert len(told) == len(built) + 1 and (tmp_path / "README.md").exists() == bool(there)


def test_the_original_s_code_stands_beside_ours(world, page):
    table = pd.read_csv(world[1] / "tuned" / "tables" / "original.csv", index_col="operation")
    assert (table[["n", "reached", "their_n", "their_reached"]] == 4).all(axis=None)
    assert table["ratio"].drop(S5).between(0.9, 1.15).all()  # times are whole blocks of 10 updates
    assert "agrees with ours on 2 of 3 operations" in section(page, "Methods and limits")


def test_the_original_s_code_agrees_where_the_interval_of_the_ratio_is_narrow_enough():
    ours = {"x_plus_y": [300, 320, 310, 290], "x_div_y": [400, 420, 410, 390], "permutation": [900, 2000, 700, 4000]}
    frame = pd.concat(crossing(s, t, "baseline", 750, o) for o, of in ours.items() for s, t in enumerate(of))
    theirs = {
        "x_plus_y": [310, 300, 315, 295],
        "x_div_y": [600, 620, 610, np.nan],
        "permutation": [800, 1500, 900, 2500],
    }
    rows = [(o, run, t) for o, of in theirs.items() for run, t in enumerate(of)]
    table = further.beside_original(frame, pd.DataFrame(rows, columns=["operation", "run", "updates"]))
    assert table["operation"].tolist() == [*ours]
    assert table["mean"].tolist() == pytest.approx([np.exp(np.log(of).mean()) for of in ours.values()])
    assert table["their_reached"].tolist() == [4, 3, 4] and (table["their_n"] == 4).all()
    said = further.original_line(table)
    assert "agrees with ours on 1 of 3 operations" in said  # x / y is 0.66 times as long, S5 too uncertain
    assert "within ± 25 %" in said


def beaten(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    """Rows of `answer.Decided.beaten`: schedule, kind, way, said, on one operation."""
    return pd.DataFrame(rows, columns=["schedule", "kind", "way", "said"]).assign(operation="x_plus_y")


KEPT, BOTH = "keeps 99 % dominating its comparator", "beats the constants: "


@pytest.mark.parametrize(
    ("rows", "line", "counts", "advice"),
    [
        (
            [("down", "shrinking", "domination", KEPT), ("linear", "growing", "sooner", "")],
            "Some do one of the two. All of those shrink the batch.",
            "none beat the constants by both outcomes and 1 by one (all shrinking)",
            "None that grows it does.",
        ),
        (
            [("down", "shrinking", "domination", KEPT), ("linear", "growing", "domination", KEPT)],
            "Some do one of the two.",
            "none beat the constants by both outcomes and 2 by one (1 shrinking and 1 growing)",
            "though some do by one",
        ),
        (
            [("linear", "growing", "sooner", f"{BOTH}sooner than every constant")],
            "Yes: with rate and decay tuned for each, there are schedules of the batch size that grok sooner",
            "1 beat the constants by both outcomes",
            "some need fewer updates than every constant",
        ),
        (
            [("linear", "growing", "domination", f"{BOTH}dominating its comparator")],
            "In updates no, in cost yes",
            "1 beat the constants by both outcomes",
            "saves no updates beside the soonest constant. Some save examples.",
        ),
        (
            [("linear", "growing", "sooner", "")],
            "no schedule of the batch size is shown to beat the constant ones.",
            "none beat the constants by both outcomes ([Table]",
            "no schedule that was tried is worth its trouble",
        ),
    ],
)
def test_what_schedules_win_is_told_with_its_way_and_their_kind(rows, line, counts, advice):
    table = beaten(*rows)
    told = answer.verdict_line(table)
    assert line in told and ("shrink the batch" in told) == ("All of those" in line)
    assert counts in answer.ways_line(table)
    none = pd.DataFrame(columns=["family", "operation", "schedule", "outcome", "verdict"])
    assert advice in words.schedule_advice(answer.Decided(none, none, table, table))
