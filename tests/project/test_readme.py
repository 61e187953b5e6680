"""What the README shows works as it is written there."""

import re
import shlex
import subprocess
import tomllib

import numpy as np
import pandas as pd
import pytest
import yaml
from support.project import ROOT
from support.studies import write_study

from grok_utils import schedules, tasks
from grok_utils.page import style
from grok_utils.pipeline.parameters import make_run
from grok_utils.pipeline.study_files import load_study
from grok_utils.store.records import read_record, write_records
from grok_utils.training import train

README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def block(section: str, language: str) -> str:
    """The first code block of a language under a heading."""
    text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1]


def added(source: str, module, names: dict) -> str:
    """The name that `source`, executed as part of `module`, adds to `names`."""
    before = set(names)
    exec(compile(source, "README.md", "exec"), dict(vars(module)))
    (name,) = names.keys() - before
    return name


@pytest.fixture
def untouched():
    """The schedules and operations as they were, after the test."""
    before = dict(schedules.SCHEDULES), dict(tasks.OPERATIONS)
    yield
    for names, old in zip((schedules.SCHEDULES, tasks.OPERATIONS), before, strict=True):
        names.clear()
        names.update(old)


def test_a_schedule_is_at_most_five_lines_and_trains(untouched, tmp_path):
    source = block("Change a schedule", "python")
    assert len(source.splitlines()) <= 5
    name = added(source, schedules, schedules.SCHEDULES)
    run = make_run(write_study(tmp_path, schedules=[name, "baseline"]), name, [0], tmp_path / "results", "cpu")
    write_records(train(run))
    rows = read_record(run.record(0))[0]
    sizes = rows[rows.operation == "x_plus_y"].sort_values("update").batch_size
    assert np.array_equal(sizes, [int(4 + 12 * (s / 60) ** 0.5) for s in range(10, 61, 10)])


def test_an_operation_is_at_most_five_lines_and_trains(untouched, tmp_path):
    source = block("Bring your own operation", "python")
    assert len(source.splitlines()) <= 5
    name = added(source, tasks, tasks.OPERATIONS)
    pairs = tasks.all_pairs(name, 11)
    assert [int(z) for x, y, z in pairs] == [(int(x) * int(y) + int(y)) % 11 for x, y, _ in pairs]
    run = make_run(write_study(tmp_path, operations=[name]), "linear", [0], tmp_path / "results", "cpu")
    write_records(train(run))
    assert set(read_record(run.record(0))[0].operation) == {name}


def test_the_study_of_your_own_is_allowed(tmp_path):
    (tmp_path / "mine.yaml").write_text(block("A study of your own", "yaml"), encoding="utf-8")
    study = load_study(str(tmp_path / "mine.yaml"))
    assert [arm.control for arm in study.schedules] == [None, None, None, "reverse", "shuffle", "mean"]


def test_the_records_are_read_as_the_readme_says(monkeypatch):
    monkeypatch.chdir(ROOT)
    *lines, last = block("Results, read with pandas", "python").splitlines()
    names = {}
    exec("\n".join(lines), names)
    best = eval(last, names)
    assert isinstance(best, pd.Series) and len(best) >= 20 and best.between(0, 1).all()
    told = re.search(r"Columns: `([^`]*)`", README)[1]
    assert re.split(r",\s+", told) == list(names["frame"].columns)


def commands() -> list[str]:
    """Every make command in a shell block or between backticks."""
    lines = [
        line.split("#")[0] for text in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in text.split("\n")
    ]
    inline = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", README, flags=re.DOTALL))
    parts = [part.strip() for line in lines + inline for part in line.split("&&")]
    return sorted({" ".join(part.split()) for part in parts if re.match(r"make( |$)", part)})


def test_there_are_commands():
    assert len(commands()) >= 12
    assert "make pdf STUDY=paper" in commands()


@pytest.mark.parametrize("command", commands())
def test_a_make_command_names_targets_and_settings_that_exist(command):
    words = shlex.split(command)[1:]
    for word in words:
        if re.match(r"[A-Z_]+=", word):
            assert re.search(rf"^{word.split('=')[0]} \?=|\$\({word.split('=')[0]}\)", MAKEFILE, re.MULTILINE), word
    # PYTHON=true: even with -n, a recipe that calls make again is carried out.
    done = subprocess.run(["make", "-n", *words, "VENV=", "PYTHON=true"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_files_and_modules_that_the_readme_names_exist():
    named = set(re.findall(r"(?:grok_utils|notebooks|results)/[\w./-]*\w\.\w+", README)) - {
        "notebooks/studies/mine.yaml",
        "results/quick/report.html",
        "results/evidence/report.html",
        "results/paper/report.pdf",
    }
    assert {name for name in named if not (ROOT / name).exists()} == set()
    tree = README.split("## What is where")[1].split("```")[1]
    rooms = {path.name for path in ROOT.glob("grok_utils/*.py")} - {"__init__.py"}
    rooms |= {f"{path.parent.name}/" for path in ROOT.glob("grok_utils/*/__init__.py")}
    assert rooms <= set(re.findall(r"\w+(?:\.py|/)", tree))


def test_every_picture_is_there_for_light_and_for_dark_ground():
    pictures = re.findall(r"<picture>(.*?)</picture>", README, re.DOTALL)
    assert pictures and len(re.findall(r"!\[|<img", README)) == len(pictures)
    for picture in pictures:
        dark = re.search(r'media="\(prefers-color-scheme: dark\)" srcset="([^"]+)"', picture)[1]
        light = re.search(r'<img alt="[^"]{20,}" src="([^"]+)"', picture)[1]
        for path, ink, other in ((light, style.INK, style.INK_ON_DARK), (dark, style.INK_ON_DARK, style.INK)):
            text = (ROOT / path).read_text(encoding="utf-8")
            assert ink in text and other not in text and "prefers-color-scheme" not in text


def test_the_citation_agrees_with_the_project():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format demands
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert "2408.06292" in str(citation["references"]) and "2408.06292" in README


def test_the_front_page_says_what_the_evidence_says():
    front = " ".join(README.split("Two commands")[0].split())
    tables = ROOT / "results" / "evidence" / "tables"
    contrasts = pd.read_csv(tables / "contrasts.csv").set_index(["claim", "reference", "operation"])
    shown = {
        (3, "linear-reversed"): {"x_plus_y": "contradicted", "x_div_y": "contradicted", "x_minus_y": "equivalent"},
        (1, "baseline"): {"x_plus_y": "supported", "x_minus_y": "supported", "x_div_y": "cannot tell"},
    }
    for test, verdicts in shown.items():
        for operation, verdict in verdicts.items():
            row = contrasts.loc[(*test, operation)]
            assert (row["arm"], row["verdict"]) == ("linear", verdict)
            assert f"(n = {row['n']}" in front
            size, *bounds = (abs(round(row[name])) for name in ("difference", "low", "high"))
            told = rf"by {size}( updates)? on `{operation}` \((95 % interval )?{min(bounds)} to {max(bounds)}\)"
            assert bool(re.search(told, front)) == (verdict in ("supported", "contradicted"))
    dose = pd.read_csv(tables / "dose-response-table.csv").query("operation != 'permutation'")
    soonest = dose.loc[dose.groupby("operation")["rmst"].idxmin()]
    assert set(soonest["schedule"]) == {"constant-128", "constant-144"} and set(dose["n"]) == {30}
    assert dose["schedule"].nunique() == 13
    studies = pd.read_csv(tables / "studies.csv")
    assert f"{studies['records'].sum():,} records" in front


def test_what_is_said_of_lower_precisions_is_what_was_measured():
    same = pd.read_csv(ROOT / "results" / "evidence" / "tables" / "precision.csv").set_index("precision")["equivalent"]
    assert "All six\ndifferences of tf32 and five of six of bf16 are equivalent" in README
    assert same["tf32"].eq(True).sum() == len(same["tf32"]) == 6
    assert (same["bf16"].eq(True).sum(), len(same["bf16"])) == (5, 6)


def test_the_times_on_a_gpu_are_those_of_the_bench():
    bench = ROOT / "results" / "bench"
    paper = pd.read_csv(bench / "cuda-paper.csv")
    together = paper["arm"] == "all side by side"
    for precision in ("float32", "tf32", "bf16"):
        one, all_ = (paper[which & (paper["precision"] == precision)] for which in (~together, together))
        floor = (all_["flops_floor_s"] + all_["state_floor_s"]).item()
        assert f"| {precision} | {one['train_s'].sum():.1f} | {all_['train_s'].item():.1f} | {floor:.1f} |\n" in README
    usual = re.search(r"([\d,]+) s for 60 runs", (bench / "cuda.txt").read_text(encoding="utf-8"))[1]
    assert f"| the usual loop, float32 | {usual} | | |\n" in README
    members = pd.read_csv(bench / "cuda-members.csv").set_index("members")["s_a_member"]
    first, second, *others = (f"{seconds:.2f}" for seconds in members)
    told = f"{first} s a model in a stack of 4, {second} in one of 12, "
    told += f"{others[0]} of 60, {others[1]} of 240 and {others[2]} of 960"
    assert told in " ".join(README.split())
    assert list(members.index) == [4, 12, 60, 240, 960]
    made = (bench / "cuda-make.txt").read_text(encoding="utf-8")
    cold, warm, _ = (round(float(seconds)) for seconds in re.findall(r"([\d.]+) s from the command", made))
    assert f"{cold // 60}:{cold % 60:02} minutes from that command to its report" in " ".join(README.split())
    assert f"and {warm // 60}:{warm % 60:02} where all has been compiled before" in " ".join(README.split())
    _, alone, shared = (float(seconds) for seconds in re.findall(r"the longest ([\d.]+)", made))
    assert f"{shared:.0f} s of training instead of {alone:.0f}" in " ".join(README.split())
