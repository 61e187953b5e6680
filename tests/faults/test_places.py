"""Where the project is run does not change its results: read-only trees, odd paths, homes, locales, compilers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_study
from test_disk import read_only
from test_make import ROOT, command, environment

from grok_utils.parameters import make_run
from grok_utils.records import read_record

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


def made(cwd, results, study, path=os.environ["PATH"], **variables):
    """Make a record and the report by make in the folder `cwd`."""
    for words in (["run", "SCHEDULE=linear", "SEED=0"], ["report"]):
        asked = command(*words, STUDY=study, RESULTS=results)
        names = environment() | {"PATH": path} | variables
        done = subprocess.run(asked, cwd=cwd, env=names, capture_output=True, text=True, timeout=200)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return read_record(results / "tiny" / "records" / "linear-seed0.parquet")[0]


@pytest.fixture(scope="module")
def at_home(tmp_path_factory):
    """The study file, the rows of a record made in the project's own folder, and the report's figures and tables."""
    folder = tmp_path_factory.mktemp("home")
    study = write_study(folder, schedules=["linear"], seeds=[0])
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
    code = "from grok_utils.training import *; from grok_utils.parameters import make_run; import sys\n"
    code += "print(choose_path(make_run('paper', 'baseline', [0], device='cpu')))"
    said = {}
    for path in (str(programs), os.environ["PATH"]):
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment() | {"PATH": path}, capture_output=True, text=True
        )
        said[path] = done.stdout
    assert "compiled=False" in said[str(programs)]
    assert f"compiled={shutil.which('g++') is not None}" in said[os.environ["PATH"]]


def test_two_runs_of_a_study_leave_the_same_but_for_times(tmp_path, at_home):
    study, rows, files = at_home
    assert made(ROOT, tmp_path / "results", study).equals(rows)
    assert kept_files(tmp_path / "results" / "tiny") == files
    first, second = (masked(folder / "tiny") for folder in (Path(study).parent / "results", tmp_path / "results"))
    assert first == second
    metadata = [
        read_record(make_run(study, "linear", [0], folder).record(0))[1]
        for folder in (Path(study).parent / "results", tmp_path / "results")
    ]
    assert {k for k in metadata[0] if metadata[0][k] != metadata[1][k]} <= {"started", "seconds"}


def masked(folder):
    """The report's page without the date and the minutes of training, which are a run's own."""
    page = (folder / "report.html").read_text(encoding="utf-8")
    metadata = read_record(next(folder.glob("records/*.parquet")))[1]
    minutes = f"{metadata['seconds'] / 60:,.1f} minutes in all"
    assert minutes in page and metadata["started"][:10] in page
    return page.replace(minutes, "MINUTES").replace(metadata["started"][:10], "DATE")
