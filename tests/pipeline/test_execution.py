"""Notebooks executed by papermill, and the command line that the Makefile calls."""

import contextlib
import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from safetensors import SafetensorError
from support.processes import CONTEXT
from support.studies import outcome, run_of, small, write_study

from grok_utils import errors
from grok_utils.engine.machine import forward_passes
from grok_utils.errors import Damaged, Failed, with_remedy
from grok_utils.page.export import export_html
from grok_utils.page.notebook import Progress
from grok_utils.pipeline import execution, plan
from grok_utils.pipeline.execution import NOTEBOOKS, execute, execute_run, graceful_stop
from grok_utils.pipeline.kernel import Kernel, wait_for
from grok_utils.pipeline.locks import at_work, locked
from grok_utils.pipeline.parameters import make_run
from grok_utils.pipeline.plan import all_begun, left_to_do, planned_runs, status_lines
from grok_utils.pipeline.study_files import load_study
from grok_utils.store import checkpoints, files
from grok_utils.store.files import write_text
from grok_utils.store.records import read_record


def files_in(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def left_by(notebook, word):
    """What the code cells whose source has `word` leave: each output's MIME types, and its text."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and word in cell.source]
    return [(sorted(o.get("data", [o.output_type])), plain(o)) for cell in cells for o in cell.outputs]


def plain(output):
    """The plain text of an output, be it a display or a stream."""
    return output.get("text") or output.get("data", {}).get("text/plain", "")


def check_page(notebook, page):
    """Nothing of the exported notebook is overwritten text, a widget, a script or an address."""
    about = nbformat.read(notebook, as_version=4)
    assert not [o for _, o in left_by(about, "") if "\r" in o]
    assert "widgets" not in about.metadata and "widget-view" not in notebook.read_text(encoding="utf-8")
    export_html(notebook, page)
    text = page.read_text(encoding="utf-8")
    assert "<svg" in text and "<script" not in text
    assert re.findall(r"(?:src|href)=\"(?!#|data:)[^\"]*", text) == []


def mimetypes(notebook):
    """The MIME types of each display in an executed notebook, with its metadata's name where it has one."""
    outputs = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs if "data" in o]
    return [(sorted(o.data), {v.get("name") for v in o.metadata.values() if isinstance(v, dict)}) for o in outputs]


# --- papermill -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A run made through run.ipynb."""
    folder = tmp_path_factory.mktemp("executed")
    study = write_study(folder)
    run = make_run(study, "linear", [0, 1], str(folder / "results"), "cpu")
    execute_run(run, study)
    return run


def test_run_ipynb_leaves_the_records_and_a_readable_lab_log(executed):
    assert files_in(executed.folder) == [
        "records/linear-seed0.parquet",
        "records/linear-seed1.parquet",
        "runs/linear-seeds0-1.ipynb",
    ]
    notebook = nbformat.read(executed.folder / "runs" / "linear-seeds0-1.ipynb", as_version=4)
    shown = mimetypes(notebook)
    assert (["image/svg+xml", "text/plain"], {"schedule"}) in shown
    assert (["image/svg+xml", "text/plain"], {"learning-curves"}) in shown
    assert (["text/html", "text/plain"], {"last-log"}) in shown
    text = "\n".join(str(o) for cell in notebook.cells for o in cell.get("outputs", []))
    assert "60 of 60 updates" in text
    assert "stderr" not in text


def test_training_leaves_its_bar_in_its_last_state_and_nothing_that_a_page_could_not_show(executed, tmp_path):
    path = executed.folder / "runs" / "linear-seeds0-1.ipynb"
    (bar, text), (chosen, _) = left_by(nbformat.read(path, as_version=4), "Progress(")
    assert bar == chosen == ["text/plain"]
    assert re.match(r"linear-seeds0-1  █{20}  100%  60 of 60 updates  0:00:\d\d  validation accuracy [\d.]+%$", text)
    check_page(path, tmp_path / "run.html")


def test_a_run_in_a_kernel_is_bit_identical_to_one_outside(executed, trained):
    for seed in (0, 1):
        rows = read_record(executed.record(seed))[0]
        assert rows.equals(read_record(trained[0].record(seed))[0])


def test_a_run_whose_records_are_there_is_not_made_again(executed, capsys, monkeypatch):
    monkeypatch.setattr(execution, "execute", lambda *arguments: pytest.fail("executed again"))
    execute_run(executed, "tiny")
    assert capsys.readouterr().out == "linear-seeds0-1: found complete\n"


def test_an_unknown_parameter_fails_in_one_line_and_leaves_no_target(tmp_path):
    output = tmp_path / "linear-seed0.ipynb"
    parameters = {"study": write_study(tmp_path), "schedule": "linear", "device": "cpu", "lerning_rate": 0.1}
    with pytest.raises(Failed) as caught:
        execute("run.ipynb", output, parameters | {"results": str(tmp_path / "results")})
    text = str(caught.value)
    assert text.startswith("linear-seed0: parameter: 'lerning_rate' is not known (allowed: study, schedule")
    assert len(text.splitlines()) == 1
    assert files_in(tmp_path) == ["linear-seed0.part.ipynb", "tiny.yaml"]


def test_explore_ipynb_leaves_its_bar_and_its_figure_in_their_last_state(tmp_path):
    parameters = {"results": str(tmp_path / "results"), "device": "cpu", "modulus": 11, "updates": 60}
    execute("explore.ipynb", tmp_path / "explored.ipynb", parameters)
    notebook = nbformat.read(tmp_path / "explored.ipynb", as_version=4)
    (bar, text), (figure, _) = left_by(notebook, "Progress(")
    assert (bar, figure) == (["text/plain"], ["image/svg+xml", "text/plain"])
    assert "100%  60 of 60 updates" in text
    assert (["text/html", "text/plain"], {"crossings"}) in mimetypes(notebook)
    check_page(tmp_path / "explored.ipynb", tmp_path / "explored.html")


def test_every_notebook_is_executed_by_some_test():
    tests = [p for p in Path(__file__).parents[1].rglob("test_*.py") if p.parent.name not in ("browser", "faults")]
    sources = "".join(p.read_text(encoding="utf-8") for p in tests)
    by_command = {"report": r'outcome\(capsys, "report"', "evidence": r"build_page\(tmp_path, name\)"}
    for stem in [p.stem for p in NOTEBOOKS.glob("*.ipynb")] or [None]:
        assert re.search(by_command.get(stem, rf'execute\("{stem}\.ipynb"'), sources), stem


def test_a_notebook_that_leaves_no_record_is_a_failure(tmp_path, monkeypatch):
    study = write_study(tmp_path)
    run = make_run(study, "linear", [0], str(tmp_path), "cpu")
    monkeypatch.setattr(execution, "execute", lambda *arguments: None)
    with pytest.raises(Failed, match=r"without leaving .*linear-seed0\.parquet: give run\.ipynb back its write_"):
        execute_run(run, study)


# --- what is to be done --------------------------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path, trained):
    """A study of three arms: linear complete, seed 0 of baseline in the middle. Its file, the study, the results."""
    path = write_study(tmp_path, arms=small("linear", "baseline", "exponential"))
    results = tmp_path / "results"
    shutil.copytree(trained[0].folder / "records", results / "tiny" / "records")
    run = make_run(path, "baseline", [0], str(results), "cpu")
    checkpoints.save(run.checkpoint, {}, {"seeds": [0], "updates": 30, "seconds": 2.0})
    return path, load_study(path), results


def test_planned_are_the_missing_runs_most_work_first(begun):
    _, study, results = begun
    assert [r.name for r in planned_runs(study, results)] == [
        "baseline-seed0",
        "baseline-seed1",
        "exponential-seed0",
        "exponential-seed1",
    ]
    assert [r.name for r in planned_runs(study, results, seeds_per_run=2)] == [
        "exponential-seeds0-1",
        "baseline-seed0",  # begun alone
        "baseline-seed1",
    ]
    part = results / "tiny" / "runs" / "exponential-seeds0-1.part.ipynb"
    part.parent.mkdir()
    part.write_text('{"metadata": {"papermill": {"parameters": {"seeds": [0, 1]}, "failed": "for want of memory"}}}')
    assert [r.name for r in planned_runs(study, results)][2:] == ["exponential-seed0", "exponential-seed1"]
    (results / "tiny" / "records" / "linear-seed0.parquet").unlink()
    assert "linear-seed0" in [r.name for r in planned_runs(study, results, seeds_per_run=2)]


def test_a_damaged_record_is_not_planned_over(begun):
    _, study, results = begun
    bad = results / "tiny" / "records" / "linear-seed1.parquet"
    bad.write_bytes(bad.read_bytes()[:1000])
    for look in (planned_runs, status_lines):
        with pytest.raises(Damaged, match=r"linear-seed1\.parquet is not a readable record"):
            look(study, results)
    assert bad.exists()


def test_status_says_what_is_done_stopped_and_missing(begun):
    _, study, results = begun
    lines = status_lines(study, results)
    assert lines[:-1] == [
        "baseline-seed0: stopped after 30 of 60 updates",
        "baseline-seed1: not begun",
        "exponential-seeds0-1: not begun",
    ]
    told = r"tiny: 2 of 6 records complete; about 0:0\d:\d\d left, divided by the runs at a time; "
    assert re.fullmatch(told + re.escape(f"make all STUDY=tiny RESULTS={results} goes on"), lines[-1])
    assert status_lines(study, Path("results"), "my/tiny.yaml")[-1].endswith("; make all STUDY=my/tiny.yaml goes on")


NO_LOGS = np.full((1, 2, 4), np.nan)  # none that is finite


def show_progress(notebook, bar, updates, seconds=None):
    """Leave in `notebook` what papermill saves of it while `bar` shows `updates`, of which ten take two seconds."""
    text = bar.text(updates, NO_LOGS, 0.2 * updates if seconds is None else seconds)
    notebook.write_text(json.dumps({"cells": [{"outputs": [{"data": {"text/plain": text}}]}]}))


def test_a_run_under_make_tells_how_far_its_notebook_shows_it(begun, monkeypatch, capsys):
    path, _, results = begun
    monkeypatch.setattr(plan, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(plan, "REPORT_SECONDS", 0.0)
    run = make_run(path, "exponential", [0, 1], str(results), "cpu")
    part, bar = run.notebook.with_suffix(".part.ipynb"), Progress(60, run.name)
    part.parent.mkdir()
    show_progress(part, bar, 50)  # of an execution that failed
    told, deadline = "", time.monotonic() + 20
    with plan.progress_lines(run):
        for updates in (20, 40):
            time.sleep(0.1)  # the same once more is no news
            show_progress(part, bar, updates)
            while f"{updates} of" not in told and time.monotonic() < deadline:
                time.sleep(0.01)
                told += capsys.readouterr().out
    lefts = {20: "0:00:08", 40: "0:00:04"}
    expected = [f"{run.name}: {updates} of 60 updates, about {left} left" for updates, left in lefts.items()]
    assert (told + capsys.readouterr().out).splitlines() == expected


def test_status_says_what_is_running(begun):
    path, study, results = begun
    begun_run, other = (make_run(path, arm, [0], str(results), "cpu") for arm in ("baseline", "exponential"))
    part = results / "tiny" / "runs" / "exponential-seed0.part.ipynb"
    part.parent.mkdir()
    part.write_text('{"metadata": {"papermill": {"parameters": {"seeds": [0]}, "failed": "an earlier time"}}}')
    with locked(begun_run), locked(other):
        *lines, summary = status_lines(study, results)
    assert lines == [
        "baseline-seed0: running, 30 of 60 updates at its last checkpoint",
        "exponential-seed0: running, no checkpoint yet",
        "baseline-seed1: not begun",
        "exponential-seed1: not begun",
    ]
    assert re.fullmatch(r"tiny: 2 of 6 records complete, 2 running; about 0:0\d:\d\d left", summary)
    part.write_text('{"metadata": {"papermill": {"parameters": {"seeds": [0, 1]}}}}')
    block = make_run(path, "exponential", [0, 1], str(results), "cpu")
    part = part.replace(part.with_name(f"{block.name}.part.ipynb"))
    with locked(block):  # which holds a lock for each record
        assert "exponential-seeds0-1: running, no checkpoint yet" in status_lines(study, results)
        show_progress(part, Progress(60, block.name), 40)
        assert plan.progress_shown(block) == "40 of 60 updates, about 0:00:04 left"
        show_progress(part, Progress(7_500, block.name), 1_500, 86_400.0)
        assert plan.progress_shown(block) == "1,500 of 7,500 updates, about 4 days, 0:00:00 left"
        about = {"papermill": {"parameters": {"seeds": [0, 1]}}}
        bar = Progress(60, block.name).text(40, NO_LOGS, 8.0)
        part.write_text(json.dumps({"metadata": about, "cells": bar}))
        assert "exponential-seeds0-1: running, 40 of 60 updates, about 0:00:04 left" in status_lines(study, results)
    part.write_text('{"metadata":')  # as papermill may be writing it
    assert "exponential-seeds0-1: not begun" in status_lines(study, results)


def test_a_failure_is_remembered_until_the_run_is_made(tmp_path):
    path = write_study(tmp_path, arms=small("linear"), seeds=[0])
    study, results = load_study(path), tmp_path / "results"
    run = make_run(path, "linear", [0], str(results), "cpu")
    run.folder.mkdir(parents=True)
    (run.folder / "records").write_text("in the way")
    with pytest.raises(Failed):
        execute_run(run, path)
    for _ in range(2):
        failed, summary = status_lines(study, results)
        assert re.match(r"linear-seed0: failed after [0-6]?0 of 60 updates: \w+Error: ", failed)
        assert failed.endswith(f"(see {run.folder}/runs/linear-seed0.part.ipynb)")
        assert summary == f"tiny: 0 of 1 records complete, 1 failed; make all STUDY=tiny RESULTS={results} goes on"
    (run.folder / "records").unlink()
    execute_run(run, path)
    built = f"make report STUDY=tiny RESULTS={results} builds the report"
    assert status_lines(study, results) == [f"tiny: 1 of 1 records complete; {built}"]


def test_time_left_is_reckoned_in_work(begun):
    path, study, results = begun
    rising = make_run(path, "exponential", [0], str(results), "cpu")
    assert [forward_passes(rising, updates) for updates in (0, 60)] == [0, forward_passes(rising)]
    assert 0 < forward_passes(rising, 30) < 0.45 * forward_passes(rising)  # its later batches are larger
    # Missing are two seeds of baseline, a minute each, and two of exponential, whose batches are smaller.
    found, work = left_to_do(study, results)
    assert found == 2
    assert 2.5 < work / forward_passes(make_run(path, "baseline", [0], str(results), "cpu")) < 3.8


def test_status_survives_a_checkpoint_of_other_content(begun):
    path, study, results = begun
    checkpoint = make_run(path, "baseline", [0], str(results), "cpu").checkpoint
    for content in (b"", b"nonsense"):
        checkpoint.write_bytes(content)
        assert "baseline-seeds0-1: not begun" in status_lines(study, results)
    checkpoints.save(checkpoint, {}, {"progress": 30})
    assert "baseline-seeds0-1: not begun" in status_lines(study, results)


@pytest.mark.parametrize("block", [(0,), (0, 1)])
def test_one_process_at_a_time_works_on_a_record(tmp_path, capsys, block):
    run = make_run(write_study(tmp_path), "linear", [0], str(tmp_path), "cpu")
    other = dataclasses.replace(run, seeds=(2,))
    entered = threading.Event()

    def second():
        with locked(dataclasses.replace(run, seeds=block)):
            entered.set()

    with locked(run), locked(other):
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        assert not entered.wait(0.3)
    assert entered.wait(10)
    thread.join(10)
    assert capsys.readouterr().out == "linear-seed0: another process is working on it; waiting\n"


BY_HAND = """
import sys, nbformat
names = {}
for cell in nbformat.read(sys.argv[1], as_version=4).cells:
    if cell.cell_type == "code":
        exec(cell.source, names)
"""


def test_run_ipynb_opened_by_hand_is_seen_to_run_and_waited_for(tmp_path):
    path = write_study(tmp_path, arms=small("linear"), seeds=[0], updates=200)
    study, results = load_study(path), tmp_path / "results"
    run = make_run(path, "linear", [0], str(results), "cpu")
    cells = nbformat.read(NOTEBOOKS / "run.ipynb", as_version=4)
    (parameters,) = (cell for cell in cells.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source = f"study, schedule, seeds, results, device = {(path, 'linear', [0], str(results), 'cpu')}"
    nbformat.write(cells, tmp_path / "by-hand.ipynb")
    by_hand = subprocess.Popen([sys.executable, "-c", BY_HAND, tmp_path / "by-hand.ipynb"], cwd=NOTEBOOKS.parent)
    deadline = time.monotonic() + 60
    while not at_work(run.folder):
        assert by_hand.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    by_hand.send_signal(signal.SIGSTOP)
    line, summary = status_lines(study, results)
    assert line.startswith("linear-seed0: running, ")
    assert summary.startswith("tiny: 0 of 1 records complete, 1 running")
    asked = [sys.executable, "-m", "grok_utils", "run", path, "--results", str(results), "--device", "cpu"]
    asked += ["--schedule", "linear", "--seeds", "0"]
    second = subprocess.Popen(asked, cwd=NOTEBOOKS.parent, stdout=subprocess.PIPE, text=True)
    assert second.stdout.readline() == "linear-seed0: another process is working on it; waiting\n"
    by_hand.send_signal(signal.SIGCONT)
    assert second.communicate(timeout=60) == ("linear-seed0: found complete\n", None)
    assert by_hand.wait(60) == 0


def test_what_is_trained_by_hand_is_running_before_it_has_a_checkpoint(begun):
    path, study, results = begun
    with locked(make_run(path, "exponential", [1], str(results), "cpu")):
        lines = status_lines(study, results)
    assert "exponential-seed1: running, no checkpoint yet" in lines
    assert "exponential-seed0: not begun" in lines


# --- the command line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fit", "cores", "found"), [(3, 16, 3), (30, 16, 5), (30, 4, 4)])
def test_on_a_gpu_as_many_runs_go_side_by_side_as_its_memory_holds(monkeypatch, tmp_path, fit, cores, found):
    patched = {"on_cuda": lambda device: True, "runs_that_fit": lambda runs: fit, "cores": lambda: cores}
    for name, value in patched.items():
        monkeypatch.setattr(plan, name, value)
    assert plan.side_by_side([run_of(tmp_path)] * 5, threads=1) == found


def test_plan_prints_the_missing_runs(begun, capsys):
    path, _, results = begun
    side_by_side = f"-j{len(os.sched_getaffinity(0))}" if hasattr(os, "sched_getaffinity") else f"-j{os.cpu_count()}"
    runs = [side_by_side, "run/baseline/0", "run/baseline/1", "run/exponential/0", "run/exponential/1"]
    assert outcome(capsys, "plan", path, "--results", results) == (0, runs, [])
    runs = [side_by_side, "run/exponential/0,1", "run/baseline/0", "run/baseline/1"]
    assert outcome(capsys, "plan", path, "--results", results, "--seeds-per-run", 5) == (0, runs, [])


def test_status_and_run_of_what_is_complete_succeed(begun, capsys):
    path, _, results = begun
    code, out, err = outcome(capsys, "status", path, "--results", results)
    assert (code, len(out), err) == (0, 4, [])
    complete = outcome(capsys, "run", path, "--results", results, "--schedule", "linear", "--seeds", "1,0")
    assert complete == (0, ["linear-seeds0-1: found complete"], [])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plan", "nowhere"], "study: 'nowhere' is not a study (before-grokking, confirm, "),
        (["plan", "quick", "--device", "gpu"], "device: 'gpu' is not one of"),
        (["plan", "quick", "--precision", "fp8"], "precision: 'fp8' is not one of"),
        (["plan", "quick", "--threads", "0"], "threads: 0 is not"),
        (
            ["plan", "quick", "--threads", "two"],
            "argument --threads: invalid int value: 'two' (see python -m",
        ),
        (["plan", "quick", "--seeds-per-run", "0"], "seeds-per-run: 0 is not"),
        (["run", "quick", "--schedule", "wobbly", "--seeds", "0"], "schedule: 'wobbly' is not an arm of study quick"),
        (["run", "quick", "--schedule", "linear", "--seeds", "0,x"], "seeds: '0,x' is not a non-empty list of whole"),
        (["run", "quick", "--schedule", "linear", "--seeds", "1,1"], "seeds: '1,1' is not free of repetitions"),
        (["run", "quick", "--schedule", "linear", "--seeds", "-1"], "seeds: '-1' is not"),
        (
            ["run", "quick", "--schedule", "linear"],
            "the following arguments are required: --seeds (see python -m",
        ),
        (["status", "quick", "--results", ""], "argument --results: '' is not the path of a folder"),
        (["status", "quick", "--speed", "2"], "unrecognized arguments: --speed 2 (see python -m"),
        (["walk"], "argument command: invalid choice: 'walk'"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    code, out, err = outcome(capsys, *arguments)
    assert (code, out, len(err)) == (2, [], 1)
    assert err[0].startswith(said)
    assert files_in(tmp_path) == []


def test_failures_exit_with_1_and_one_line(begun, monkeypatch, capsys):
    path, _, results = begun
    run = ["run", path, "--results", results, "--schedule", "baseline", "--seeds", "0"]
    monkeypatch.setattr(execution, "execute", lambda *arguments: None)
    make_run(path, "baseline", [0], str(results), "cpu").checkpoint.unlink()
    code, out, err = outcome(capsys, *run)
    assert (code, out, len(err)) == (1, [], 1)
    assert "baseline-seed0: the notebook ended without leaving" in err[0]
    bad = results / "tiny" / "records" / "linear-seed0.parquet"
    bad.write_bytes(b"")
    for command in ("plan", "status"):
        code, out, err = outcome(capsys, command, path, "--results", results)
        assert (code, out, len(err)) == (1, [], 1)
        assert "linear-seed0.parquet is not a readable record" in err[0]
        assert "move it away or delete it, then run make again" in err[0]


def test_a_report_is_not_built_of_what_is_not_this_study_s(begun, capsys):
    path, _, results = begun
    write_study(results.parent, arms=small("linear", "baseline", "exponential"), weight_decay=0.25)
    code, out, err = outcome(capsys, "report", path, "--results", results)
    assert (code, out, len(err)) == (1, [], 1)
    said = "linear's values of weight_decay differ from those its records were made with, from update 1 on "
    assert f"{said}(0.5 there, 0.25 in" in err[0]


def test_a_checkpoint_that_is_not_used_is_told(begun, monkeypatch, capsys):
    path, _, results = begun
    checkpoint = make_run(path, "baseline", [0], str(results), "cpu").checkpoint
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    monkeypatch.setattr(execution, "execute", lambda *arguments: None)
    _, _, err = outcome(capsys, "run", path, "--results", results, "--schedule", "baseline", "--seeds", "0")
    assert err[0].startswith(f"{checkpoint} is damaged (")
    assert err[0].endswith("): it is not used, the run starts again")


def test_results_that_cannot_be_written_are_told_in_one_line(tmp_path, capsys):
    results = tmp_path / "file"
    results.write_text("")
    path = write_study(tmp_path)
    code, out, err = outcome(capsys, "run", path, "--results", results, "--schedule", "linear", "--seeds", "0")
    assert (code, out, len(err)) == (1, [], 1)
    assert str(results) in err[0]


REMEDIES = {
    "ENOSPC EDQUOT": "free some space",
    "EACCES EPERM": "change its owner or its rights",
    "EROFS": "choose a folder of results that can be written to (RESULTS=)",
    "ENOTDIR EEXIST": "a file is in a folder's place: move it, or choose another folder (RESULTS=)",
    "EISDIR": "a folder is in a file's place: move it",
    "ENOENT": "see that it is there, or choose a folder of results that can be made (RESULTS=)",
    "ENAMETOOLONG": "choose a folder of results with a shorter name",
    "EIO ESTALE": "see to the disk",
    "EMFILE ENFILE": "allow more open files (ulimit -n)",
    "ENOLCK ENOSYS EOPNOTSUPP": "choose a folder of results (RESULTS=) whose file system has locks",
    "ENOTEMPTY": "mend that, then run it again",  # one of those that have no remedy of their own
}


@pytest.mark.parametrize(("name", "remedy"), [(name, r) for names, r in REMEDIES.items() for name in names.split()])
def test_what_the_system_refuses_is_told_with_what_to_do(tmp_path, monkeypatch, capsys, name, remedy):
    number = getattr(errno, name)
    refused = OSError(number, os.strerror(number), "a file")
    said = f"{os.strerror(number)}: {remedy}"

    def fail(*_):
        raise refused

    monkeypatch.setattr(plan, "status_lines", fail)  # by the command itself
    code, out, (line,) = outcome(capsys, "status", "quick", "--results", tmp_path)
    assert (code, out) == (1, [])
    assert line.startswith(f"{os.strerror(number)}: 'a file': {remedy}")
    with pytest.raises(OSError, match=re.escape(said)) as caught, files.written_whole(tmp_path / "record"):
        raise refused
    assert str(caught.value).startswith(f"{tmp_path / 'record'} cannot be written: ")
    assert with_remedy(caught.value) == str(caught.value)  # told once
    in_rust = SafetensorError(f"I/O error: {os.strerror(number)} (os error {number})")
    assert with_remedy(in_rust).startswith(f"I/O error: {said}")
    in_a_notebook = PapermillExecutionError(3, 3, "", "OSError", str(refused), [])
    assert execution.why(in_a_notebook).startswith(f"OSError: {os.strerror(number)}: 'a file': {remedy}")


def test_every_number_with_a_remedy_is_tested():
    tested = {getattr(errno, name) for names in REMEDIES for name in names.split()}
    assert tested == {errno.ENOTEMPTY}.union(*errors.REMEDIES.values())


def test_a_notebook_s_error_names_files_as_they_are_from_here(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise PapermillExecutionError(3, 3, "", "Damaged", "../results/tiny/records/x is damaged: move it away", [])

    monkeypatch.setattr(execution.papermill, "execute_notebook", fail)
    for folder, seen in ((NOTEBOOKS.parent, "results"), (NOTEBOOKS, "../results")):
        monkeypatch.chdir(folder)
        with pytest.raises(Failed, match=f"^report: {seen}/tiny/records/x is damaged: move it away \\(see "):
            execute("report.ipynb", tmp_path / "report.ipynb", {"results": "../results"})
    monkeypatch.chdir(NOTEBOOKS.parent)
    assert execution.from_here("../mine holds no ../mine-too", "../mine") == "mine holds no ../mine-too"
    assert execution.from_here("/data/tiny/x is damaged", "/data") == "/data/tiny/x is damaged"


# What ends by SIGINT alone, and with 0, as a kernel does that writes its checkpoint first.
WAITS = """import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); print(flush=True)
signal.sigwait([signal.SIGINT])"""


def told_to_stop(numbers):
    """Get these signals while a kernel works, and a process ends between being listed and being interrupted."""
    kernel = psutil.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE)
    kernel.stdout.readline()
    compiler = subprocess.Popen([sys.executable, "-c", ""])
    gone = psutil.Process(compiler.pid)
    compiler.wait()
    psutil.Process.children = lambda self, recursive: [gone, kernel]
    with graceful_stop() as received:
        for number in numbers:
            signal.raise_signal(number)
        assert kernel.wait() == 0
    assert received == [numbers[0]]


@pytest.mark.parametrize("numbers", [[15], [2], [15, 15], [2, 2], [15, 2, 15]])
def test_a_stop_asked_for_more_than_once_is_one_stop_and_the_kernel_has_its_time(numbers):
    process = CONTEXT.Process(target=told_to_stop, args=(numbers,))
    process.start()
    process.join()
    assert process.exitcode == 0


@pytest.mark.parametrize(("failures", "made"), [(2, True), (3, False)])
def test_a_kernel_that_did_not_start_is_started_again(tmp_path, monkeypatch, failures, made):
    starts, papermill_s = [], execution.papermill.execute_notebook

    def begin(*arguments, **options):
        starts.append(psutil.Process(options["km"].provisioner.pid).environ()["OMP_NUM_THREADS"])
        if len(starts) <= failures:
            raise RuntimeError("Kernel died before replying to kernel_info")
        return papermill_s(*arguments, **options)

    monkeypatch.setattr(execution.papermill, "execute_notebook", begin)
    path = write_study(tmp_path)
    run = make_run(path, "baseline", [0], str(tmp_path / "results"), "cpu", threads=2)
    with contextlib.nullcontext() if made else pytest.raises(Failed, match="Kernel died before replying"):
        execute_run(run, path)
    assert (run.notebook.exists(), starts) == (made, ["2"] * 3)


# --- a command to wait for -------------------------------------------------------------------------------------------

SLOW = "import sys, time; time.sleep(2.5); sys.exit(3)"


def test_what_is_to_be_ready_is_begun_once_beside_a_command_that_is_nearly_done():
    begun = []
    looks = iter([False, True, True])
    start = time.monotonic()
    code = wait_for([sys.executable, "-c", SLOW], lambda: next(looks), lambda: begun.append(time.monotonic() - start))
    assert code == 3
    assert len(begun) == 1 and begun[0] < 2.5
    assert wait_for([sys.executable, "-c", ""], lambda: True, lambda: begun.append(0)) == 0
    assert len(begun) == 1


def test_a_command_that_is_waited_for_outlives_what_goes_wrong_beside_it():
    def damaged():
        raise Damaged("a study file that has been changed since")

    start = time.monotonic()
    with pytest.raises(Damaged):
        wait_for([sys.executable, "-c", SLOW], damaged, list)
    assert time.monotonic() - start >= 2.5


ENDS_BY = """import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print(flush=True)
time.sleep(60)"""


def waits(numbers):
    """Wait for a command, and get these signals while it runs."""
    signals = threading.Thread(target=lambda: [(time.sleep(1.5), os.kill(os.getpid(), n)) for n in numbers])
    signals.start()
    sys.exit(wait_for([sys.executable, "-c", ENDS_BY], lambda: False, list))


def test_an_interrupt_is_left_to_the_command_and_sigterm_passed_on():
    process = CONTEXT.Process(target=waits, args=([2, 15],))
    process.start()
    process.join()
    assert process.exitcode == 7


def test_a_report_that_waits_has_its_kernel_once_all_records_are_there_or_at_work(tmp_path):
    path = write_study(tmp_path)
    study, results = load_study(path), tmp_path / "results"
    first, *others = (make_run(path, arm.name, study.seeds, str(results)) for arm in study.arms)
    assert not all_begun(study, results)
    with contextlib.ExitStack() as stack:
        for run in others:
            stack.enter_context(locked(run))
        assert not all_begun(study, results)
        for seed in study.seeds:
            write_text(first.record(seed), "")
        assert all_begun(study, results)
    assert not all_begun(study, results)


def test_a_kernel_that_was_never_started_can_be_stopped():
    Kernel().stop()


def test_a_kernel_that_died_is_told_with_what_to_do():
    assert execution.why(DeadKernelError("Kernel died")).endswith(
        "run it again, fewer at a time (-j) where memory is short"
    )


@pytest.mark.parametrize("name", ["MemoryError", "_ArrayMemoryError", "OutOfMemoryError"])
def test_memory_that_does_not_suffice_is_told_with_what_to_do(name):
    said = execution.why(PapermillExecutionError(3, 3, "", name, "Tried to allocate 2 GiB", []))
    remedy = "take fewer seeds at once (SEEDS_PER_RUN) or fewer runs at a time (-j)"
    assert said == f"{name}: Tried to allocate 2 GiB: {remedy}"


HELP = """
import runpy, sys
sys.argv = ["grok_utils", "--help"]
try:
    runpy.run_module("grok_utils", run_name="__main__")
finally:
    assert "torch" not in sys.modules
"""


def test_help_is_printed_without_loading_torch():
    done = subprocess.run([sys.executable, "-c", HELP], cwd=NOTEBOOKS.parent, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"plan", "run", "report", "status"} <= set(done.stdout.split())


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_line_is_one_write_so_that_runs_side_by_side_do_not_tear_each_other_s(begun, unbuffered):
    path, _, results = begun
    variables = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # which tells one write from the next
    command = [sys.executable, "-m", "grok_utils", "status", str(path), "--results", str(results)]
    with ours:
        with theirs:
            subprocess.run(command, cwd=files.ROOT, env=variables, stdout=theirs, check=True)
        writes = list(iter(lambda: ours.recv(10_000).decode(), ""))
    assert len(writes) > 1 and all(text.endswith("\n") and text.count("\n") == 1 for text in writes)
