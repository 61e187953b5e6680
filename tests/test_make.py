"""The study through Make itself, as a user runs it: interrupted, killed, continued; bad input; damaged records."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import write_study

from grok_utils.execution import NOTEBOOKS
from grok_utils.parameters import load_study, make_run
from grok_utils.records import read_record, write_records
from grok_utils.status import status_lines
from grok_utils.training import train

ROOT = NOTEBOOKS.parent
# Long enough (some 5 s) that a signal comes while it trains.
LONG = {"seeds": [0], "operations": ["x_plus_y"], "updates": 1000, "lo": 4, "hi": 8}


def command(*arguments, **settings):
    """A make command that uses this very Python and builds no .venv."""
    settings = {"VENV": "", "PYTHON": sys.executable, "DEVICE": "cpu"} | settings
    return ["make", *arguments, *(f"{name}={value}" for name, value in settings.items())]


def environment():
    """The environment without what a surrounding make has put there."""
    return {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHONPATH")}


def make(*arguments, **settings):
    """Exit code, and lines on stdout and stderr, of make in the project's root."""
    done = subprocess.run(
        command(*arguments, **settings), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def told(err):
    """The lines on stderr that are not make's own `make: *** [...] Error`."""
    return [line for line in err if not line.startswith("make")]


def test_make_alone_prints_help_which_names_every_target():
    code, out, err = make()
    assert (code, err) == (0, [])
    text = "\n".join(out)
    for target in [
        "env",
        "quick",
        "all",
        "run",
        "report",
        "status",
        "verify",
        "lab",
        "test",
        "test-faults",
        "lint",
        "bench",
        "clean",
    ]:
        assert f"  make {target} " in text
    assert make("help") == (code, out, err)


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


def processes(results):
    """The live processes that belong to a study with these results: make, its Pythons, their kernels."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            if process.environ().get("GROK_TEST") == str(results):
                found.append(process)
    return found


def started(*arguments, results, **settings):
    """make in a process group of its own, as a terminal starts it."""
    return subprocess.Popen(
        command(*arguments, RESULTS=results, **settings),
        cwd=ROOT,
        env=environment() | {"GROK_TEST": str(results)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def training_of(part):
    """Whether the notebook at `part` is in its training cell."""
    with contextlib.suppress(Exception):  # not there yet, or half written
        cells = nbformat.read(part, as_version=4).cells
        return any("train(run" in c.source and c.metadata.papermill.status == "running" for c in cells)
    return False


def kernel_of(results):
    """The process of the kernel."""
    for process in processes(results):
        with contextlib.suppress(psutil.Error):
            if "ipykernel_launcher" in process.cmdline():
                return process
    return None


def cpu_seconds(results):
    """User time of the kernel."""
    kernel = kernel_of(results)
    with contextlib.suppress(psutil.Error):
        return kernel.cpu_times().user if kernel else 0.0
    return 0.0


def takes_sigterm(results):
    """Whether the kernel handles SIGTERM itself, as it does from when `train`'s loop begins; True without /proc."""
    if not os.path.exists("/proc/self/status"):
        return True
    kernel = kernel_of(results)
    with contextlib.suppress(OSError):
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{kernel.pid}/status").read_text())[1] if kernel else "0"
        return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)
    return False


def wait_until(condition, process):
    deadline = time.monotonic() + 200  # a busy machine takes a minute to come to training
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stopped_in_training(results, part, number, work, **settings):
    """Start `make all`, signal its group once its kernel has trained for `work` CPU seconds; its code and output."""
    process = started("all", results=results, **settings)
    wait_until(lambda: training_of(part) and takes_sigterm(results), process)
    start = cpu_seconds(results)
    wait_until(lambda: cpu_seconds(results) - start > work, process)
    os.killpg(process.pid, number)
    output = process.communicate(timeout=30)[0]
    deadline = time.monotonic() + 8
    while processes(results) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes(results) == [], "processes left behind"
    return process.returncode, output


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
    assert re.fullmatch(r"linear-seed0: stopped after [1-9]\d* of 1,000 updates", begun)
    assert summary.startswith("long.run: 1 of 2 records complete; about ")
    assert seen["killed"][0] == -signal.SIGKILL


def test_ctrl_c_before_any_notebook_leaves_no_traceback(tmp_path):
    process = started("run", results=tmp_path, SCHEDULE="linear", SEED=0, STUDY="quick")
    wait_until(lambda: any("grok_utils" in p.cmdline() for p in processes(tmp_path)), process)
    time.sleep(1.0)  # it loads its packages
    os.killpg(process.pid, signal.SIGINT)
    output = process.communicate(timeout=30)[0]
    assert process.returncode != 0
    assert "Traceback" not in output


def test_sigterm_to_make_alone_reaches_what_it_started(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nif [ "$3" = plan ]; then echo run/linear/0; else exec sleep 300; fi\n')
    python.chmod(0o755)
    process = started("all", results=tmp_path, STUDY="quick", PYTHON=python)
    wait_until(lambda: any(p.name() == "sleep" for p in processes(tmp_path)), process)
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
