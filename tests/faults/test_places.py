"""Where the project is run does not change its results: read-only trees, odd paths, homes, locales, compilers."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import command, environment
from support.files import read_only
from support.project import ROOT
from support.studies import small, write_study

from grok_utils.store.records import read_record

COMPILERS = ("g++", "gcc", "c++", "cc", "clang++", "clang")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """A copy of the tracked files under a path with spaces and letters beyond ASCII."""
    folder = tmp_path_factory.mktemp("place") / "größere Gruppen, 2 × 2"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if not name.startswith("results/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


ONE = (["run", "SCHEDULE=linear", "SEED=0"], ["report"])


def made(cwd, results, study, path=os.environ["PATH"], targets=ONE, **variables):
    """Make a record and the report, or other `targets`, by make in the folder `cwd`."""
    for words in targets:
        asked = command(*words, STUDY=study, RESULTS=results)
        names = environment() | {"PATH": path} | variables
        done = subprocess.run(asked, cwd=cwd, env=names, capture_output=True, text=True, timeout=200)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return read_record(results / "tiny" / "records" / "linear-seed0.parquet")[0]


@pytest.fixture(scope="module")
def at_home(tmp_path_factory):
    """The study file, the rows of a record made in the project's own folder, and the report's figures and tables."""
    folder = tmp_path_factory.mktemp("home")
    study = write_study(folder, arms=small("linear"), seeds=[0])
    rows = made(ROOT, folder / "results", study)
    return study, rows, kept_files(folder / "results" / "tiny")


def kept_files(folder):
    """The figures, and the tables but for the one with the training time."""
    files = [p for p in folder.rglob("*") if p.suffix in (".svg", ".csv") and p.name != "provenance.csv"]
    return {p.relative_to(folder): p.read_bytes() for p in files}


def test_a_read_only_tree_under_an_odd_path_with_odd_results(tmp_path, elsewhere, at_home):
    study, rows, files = at_home
    odd = tmp_path / "meine Läufe"
    odd.mkdir()
    with read_only(elsewhere):
        assert made(elsewhere, odd, shutil.copy(study, odd / "tiny.yaml")).equals(rows)
    assert kept_files(odd / "tiny") == files
    page = (odd / "tiny" / "report.html").read_text(encoding="utf-8")
    assert not [name for name in (str(odd), str(elsewhere), sys.prefix, str(Path.home()) + "/") if name in page]


def test_a_home_that_cannot_be_written_to_and_start_up_files_in_it(tmp_path, at_home):
    study, rows, files = at_home
    home = tmp_path / "home"
    start = home / ".ipython" / "profile_default" / "startup"
    start.mkdir(parents=True)
    (start / "00.py").write_text("import numpy as np\nraise SystemExit('started')\n")
    with read_only(home):
        assert made(ROOT, tmp_path / "results", study, HOME=str(home)).equals(rows)
    assert kept_files(tmp_path / "results" / "tiny") == files


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONHASHSEED": "1", "LC_ALL": "C", "TZ": "Asia/Kathmandu"},
        {"PYTHONHASHSEED": "4294967295", "LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONHASHSEED": "7", "LC_ALL": "C.utf8", "HOME": "/"},
    ],
)
def test_hash_seed_locale_and_time_zone(tmp_path, at_home, variables):
    study, rows, files = at_home
    assert made(ROOT, tmp_path / "results", study, **variables).equals(rows)
    assert kept_files(tmp_path / "results" / "tiny") == files


def test_without_a_compiler_a_large_run_is_eager_and_a_small_one_the_same(tmp_path, at_home):
    study, rows, _ = at_home
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in os.environ["PATH"].split(":"):
        for program in Path(folder).iterdir() if Path(folder).is_dir() else ():
            if program.name not in COMPILERS and not (programs / program.name).is_symlink():
                (programs / program.name).symlink_to(program)
    assert made(ROOT, tmp_path / "results", study, path=str(programs)).equals(rows)
    code = "from grok_utils.training import *; from grok_utils.pipeline.parameters import make_run; import sys\n"
    code += "print(choose_path(make_run('paper', 'baseline', [0], device='cpu')))"
    said = {}
    for path in (str(programs), os.environ["PATH"]):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment() | {"PATH": path}, capture_output=True, text=True
        )
        said[path] = done.stdout
    assert "compiled=False" in said[str(programs)]
    assert f"compiled={shutil.which('g++') is not None}" in said[os.environ["PATH"]]


def test_two_runs_of_a_study_leave_the_same_but_for_times(tmp_path):
    study = write_study(tmp_path)
    first, second = tmp_path / "first" / "tiny", tmp_path / "second" / "tiny"
    for folder in (first, second):
        made(ROOT, folder.parent, study, targets=[["all"]])
    assert kept_files(first) == kept_files(second)
    assert masked(first) == masked(second)
    names = sorted(p.name for p in first.glob("records/*"))
    assert len(names) == 4  # two arms and two seeds
    for name in names:
        (rows, metadata), (again, others) = (read_record(folder / "records" / name) for folder in (first, second))
        assert rows.equals(again)
        assert {k for k in metadata | others if metadata.get(k) != others.get(k)} <= {"made"}
        (one,), (other,) = metadata["made"], others["made"]
        assert {k for k in one | other if one.get(k) != other.get(k)} <= {"started", "seconds"}


def masked(folder):
    """The page and provenance.csv without the days and the minutes of training, which are a run's own."""
    texts = [(folder / name).read_text(encoding="utf-8") for name in ("report.html", "tables/provenance.csv")]
    found = [re.subn(r"<time>.*</time>|[\d,.]+(?= minutes in all)", "", text) for text in texts]
    assert [n for _, n in found] == [2, 1]
    return found
