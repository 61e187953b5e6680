"""The study through Make itself, as a user runs it: interrupted, killed, continued; bad input; damaged records."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import pytest
from support.commands import (
    LONG,
    command,
    environment,
    make,
    process_of,
    processes,
    started,
    stopped_in_training,
    told,
    wait_until,
)
from support.project import ROOT
from support.studies import write_study

from grok_utils.pipeline.parameters import make_run
from grok_utils.pipeline.plan import status_lines
from grok_utils.pipeline.study_files import load_study
from grok_utils.store.records import read_record, write_records
from grok_utils.training import train


def test_make_alone_prints_help_which_names_every_target():
    code, out, err = make(PYTHON="python3")  # the last line shows it
    assert (code, err) == (0, [])
    assert len(out) <= 24 and max(map(len, out)) <= 80  # it fits a screen
    groups = [line[:9].strip() for line in out if line[9:15] == " make "]
    assert list(filter(None, groups)) == ["see it", "make it", "check it", "change it"] and groups[0]
    shown = re.findall(r"^.{9} make ([a-z-]+) +\S", "\n".join(out), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (targets,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    inner = {"help", "runs", "chromium", "slurm"}  # what shows it, and what other targets call
    assert sorted(shown) == sorted(set(targets.split()) - inner)
    assert make("help", PYTHON="python3") == (code, out, err)


@pytest.mark.parametrize("target", ["help", "all", "quick"])
def test_an_old_make_is_told_in_one_line(target):
    code, out, err = make(target, MAKE_VERSION="3.81")
    assert (code, out, len(err)) == (2, [], 1)
    assert "GNU make 4 or newer is needed, this is 3.81" in err[0]


def test_bad_input_is_told_in_one_line_before_any_work(tmp_path):
    results = tmp_path / "results"
    bad = write_study(tmp_path, learning_rate="1e-3")
    cases = {  # what make is asked for: what it says
        ("all", f"STUDY={bad}"): "learning_rate: '1e-3' is not a number from 0 to 1 (write 1.0e-3)",
        ("all", "THREADS=two"): "argument --threads: invalid int value: 'two'",
        ("run", "SCHEDULE=wobbly", "SEED=0"): "schedule: 'wobbly' is not an arm of study paper",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    asked = [
        subprocess.Popen(command(*words, RESULTS=results), cwd=ROOT, env=environment(), **pipes) for words in cases
    ]
    for process, said in zip(asked, cases.values(), strict=True):
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (2, "")
        assert len(told(err.splitlines())) == 1, err
        assert err.startswith(said)
    assert not results.exists()


@pytest.mark.parametrize("settings", [{"DEVICE": "cuda"}, {"DEVICE": "auto", "PRECISION": "tf32"}])
def test_with_a_launcher_the_device_is_looked_for_where_the_runs_are(tmp_path, settings):
    path = write_study(tmp_path)
    code, out, err = make("all", STUDY=path, RESULTS=tmp_path / "results", LAUNCH="false", **settings)
    assert (code, out[0]) == (2, f"{path}: runs to make: 4")
    assert "goes on from there" in out[1] and len(out) == 2
    assert told(err) == []


# --- a study, interrupted and continued ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of two arms and one seed: one is complete, the other made by make with two interruptions.

    Its file, its results, what was seen meanwhile, and the results of an undisturbed one.
    """
    folder = tmp_path_factory.mktemp("study")
    path = write_study(folder, name="long.run", **LONG)
    results, undisturbed, seen = folder / "results", folder / "undisturbed", {}
    for arm in ("baseline", "linear"):
        write_records(train(make_run(path, arm, [0], undisturbed, "cpu")))
    done = make_run(path, "baseline", [0], results).record(0)
    done.parent.mkdir(parents=True)
    shutil.copy(make_run(path, "baseline", [0], undisturbed).record(0), done)
    seen["done"] = done.stat().st_mtime_ns

    part = results / "long.run" / "runs" / "linear-seed0.part.ipynb"
    seen["interrupted"] = stopped_in_training(results, part, signal.SIGINT, 0.3, STUDY=path)
    seen["status"] = status_lines(load_study(path), results)
    seen["killed"] = stopped_in_training(results, part, signal.SIGKILL, 0.0, STUDY=path)
    seen["continued"] = make("run", SCHEDULE="linear", SEED=0, RESULTS=results, STUDY=path)
    seen["again"] = make("all", RESULTS=results, STUDY=path)
    return path, results, seen, undisturbed


def test_ctrl_c_stops_with_a_checkpoint_and_a_failure(study):
    _, _, seen, _ = study
    code, output = seen["interrupted"]
    assert code != 0
    assert "Traceback" not in output
    assert ": done" not in output
    begun, summary = seen["status"]
    assert re.fullmatch(r"linear-seed0: stopped after [1-9]\d* of 600 updates", begun)
    assert summary.startswith("long.run: 1 of 2 records complete; about ")
    assert seen["killed"][0] == -signal.SIGKILL


def test_ctrl_c_before_any_notebook_leaves_no_traceback(tmp_path):
    process = started("run", results=tmp_path, SCHEDULE="linear", SEED=0, STUDY="quick")
    wait_until(lambda: process_of(tmp_path, "grok_utils"), process)
    time.sleep(1.0)  # it loads its packages
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=30)[0]
    assert process.returncode != 0
    assert "Traceback" not in output


def test_sigterm_to_make_alone_reaches_what_it_started(tmp_path):
    python = tmp_path / "python"
    plan, report = "plan) echo -j1 run/linear/0;;", f'report) exec {sys.executable} "$@";;'
    python.write_text(f"#!/bin/sh\ncase $3 in {plan} {report} *) exec sleep 300;; esac\n")
    python.chmod(0o755)
    process = started("all", results=tmp_path, STUDY="quick", PYTHON=python)
    wait_until(lambda: process_of(tmp_path, "sleep"), process)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert processes(tmp_path) == []


def test_make_goes_on_where_it_stopped_and_the_record_is_that_of_an_undisturbed_study(study):
    path, results, seen, undisturbed = study
    code, out, err = seen["continued"]
    *progress, done = out  # a busy machine has time for a line on the way
    assert (code, err) == (0, []) and all("updates, about 0:" in line for line in progress)
    notebook = results / "long.run" / "runs" / "linear-seed0.ipynb"
    assert re.fullmatch(rf"linear-seed0: done in 0:0\d:\d\d \(2 of 2 records\), see {notebook}", done)
    assert notebook.exists()
    made, expected = (read_record(make_run(path, "linear", [0], r).record(0))[0] for r in (results, undisturbed))
    assert made.equals(expected)
    assert make_run(path, "baseline", [0], results).record(0).stat().st_mtime_ns == seen["done"]
    assert [p for p in results.rglob("*") if ".part" in p.name or p.suffix == ".safetensors"] == []


def test_a_complete_study_is_found_and_the_last_line_names_its_report(study):
    _, results, seen, _ = study
    code, out, err = seen["again"]
    report = results / "long.run" / "report.html"
    assert (code, told(err)) == (0, [])
    assert out == [f"{study[0]}: all records found in {results}", f"long.run: read {report}"]
    text = report.read_text(encoding="utf-8")
    assert str(ROOT) not in text
    assert "<svg" in text
    shown = nbformat.read(results / "long.run" / "report.ipynb", as_version=4)
    assert any("image/svg+xml" in o.get("data", {}) for c in shown.cells for o in c.get("outputs", []))


def test_a_damaged_record_is_named_and_nothing_goes_on(study):
    path, results, _, _ = study
    record = make_run(path, "linear", [0], results).record(0)
    content = record.read_bytes()
    record.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
    try:
        code, out, err = make("all", RESULTS=results, STUDY=path)
    finally:
        record.write_bytes(content)
    assert (code, out, len(told(err))) == (2, [], 1)
    assert told(err)[0].startswith(str(record))
    assert "move it away or delete it, then run make again" in told(err)[0]
