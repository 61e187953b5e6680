"""SIGTERM and Ctrl-C through Make, at any moment: stopped within 5 s, a checkpoint, a failure, nobody left behind."""

import contextlib
import os
import random
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
from support.commands import LONG, kernel_of, processes, started, stopped_in_training, wait_until
from support.studies import small, write_study

from grok_utils.engine.machine import choose_path, has_compiler
from grok_utils.pipeline.parameters import make_run
from grok_utils.store import checkpoints

ENDLESS = LONG | {"updates": 100_000}
LINEAR = ENDLESS | {"arms": small("linear", hi=8)}
rng = random.Random(7)
MOMENTS = [(rng.choice(["group", "make"]), round(rng.uniform(0, 14), 1)) for _ in range(8)]


@pytest.fixture(autouse=True)
def results(tmp_path):
    """Where a test's study has its results; whatever a failed test leaves running there is ended."""
    yield tmp_path / "results"
    for process in processes(tmp_path / "results"):
        process.kill()


def stop(process, whom, number):
    """Signal the whole group, as a terminal does, or make alone, as `kill` does; the seconds until nobody is left."""
    start = time.monotonic()
    (os.killpg if whom == "group" else os.kill)(process.pid, number)
    output = process.communicate(timeout=30)[0]
    return time.monotonic() - start, output


@pytest.mark.parametrize(
    ("number", "whom"), [(signal.SIGINT, "group"), (signal.SIGTERM, "make"), (signal.SIGTERM, "group")]
)
def test_stopped_while_it_trains(tmp_path, results, number, whom):
    path = write_study(tmp_path, **ENDLESS)
    runs = [make_run(path, arm, [0], results) for arm in ("linear", "baseline")]
    process = started("-j2", "all", results=results, STUDY=path)
    wait_until(lambda: all(run.checkpoint.exists() for run in runs), process)
    begun = [checkpoints.read_metadata(run.checkpoint)["updates"] for run in runs]
    time.sleep(1)
    asked = time.time()
    seconds, output = stop(process, whom, number)
    assert seconds < 5
    assert all(run.checkpoint.stat().st_mtime > asked for run in runs)
    assert process.returncode != 0
    assert processes(results) == []
    assert "Traceback" not in output
    assert all(checkpoints.load(run.checkpoint)[1]["updates"] > n for run, n in zip(runs, begun, strict=True))


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="only /proc tells which signals wait")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_again_before_the_checkpoint_is_written(tmp_path, results, number):
    """As make does: of a SIGTERM to the whole group, it sends what it runs a second one."""
    path = write_study(tmp_path, **ENDLESS)
    run = make_run(path, "linear", [0], results)
    process = started("run", results=results, STUDY=path, SCHEDULE="linear", SEED=0)
    wait_until(run.checkpoint.exists, process)
    kernel = kernel_of(results)
    driver = kernel.parent()
    kernel.suspend()  # it finds no time to write one before the second signal
    asked = time.time()
    driver.send_signal(number)
    wait_until(lambda: interrupt_waits_at(kernel), process)
    driver.send_signal(number)
    with contextlib.suppress(psutil.TimeoutExpired):  # long enough for it to do what it does
        driver.wait(0.5)
    kernel.resume()
    output = process.communicate(timeout=30)[0]
    assert time.time() - asked < 5
    assert run.checkpoint.stat().st_mtime > asked
    assert process.returncode != 0
    assert processes(results) == []
    assert "Traceback" not in output


def interrupt_waits_at(kernel):
    """Whether a SIGINT was sent to the process that it has not taken yet."""
    waiting = re.search(r"ShdPnd:\s*(\w+)", Path(f"/proc/{kernel.pid}/status").read_text())[1]
    return bool(int(waiting, 16) >> (signal.SIGINT - 1) & 1)


@pytest.mark.parametrize(("whom", "delay"), MOMENTS)
def test_stopped_at_any_moment(tmp_path, results, whom, delay):
    path = write_study(tmp_path, **LINEAR)
    process = started("all", results=results, STUDY=path)
    time.sleep(delay)
    assert process.poll() is None
    seconds, output = stop(process, whom, signal.SIGTERM if whom == "make" else signal.SIGINT)
    assert seconds < 5
    deadline = time.monotonic() + 5 - seconds
    while processes(results) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes(results) == []
    assert process.returncode != 0
    assert "Traceback" not in output


@pytest.mark.skipif(not has_compiler("cpu"), reason="no C++ compiler here")
@pytest.mark.parametrize("delay", [7, 10, 14])
def test_stopped_while_it_compiles(tmp_path, results, delay, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    path = write_study(tmp_path, **LINEAR | {"arms": small("linear", hi=512), "updates": 1_000_000, "modulus": 97})
    assert choose_path(make_run(path, "linear", [0], results, "cpu")).compiled
    process = started("all", results=results, STUDY=path)
    time.sleep(delay)
    seconds, output = stop(process, "group", signal.SIGINT)
    assert seconds < 5
    assert processes(results) == []
    assert process.returncode != 0
    assert "Traceback" not in output
    assert not list(results.rglob("*.parquet"))


@pytest.mark.parametrize("attempt", range(4))
def test_everything_killed_at_once_leaves_no_kernel(tmp_path, results, attempt):
    path = write_study(tmp_path, **LINEAR)
    part = make_run(path, "linear", [0], results).folder / "runs" / "linear-seed0.part.ipynb"
    code, _ = stopped_in_training(results, part, signal.SIGKILL, 0.3 * attempt, STUDY=path)
    assert code == -signal.SIGKILL


def test_a_kernel_that_is_killed_is_a_failure_told_in_one_line_and_the_run_goes_on_later(tmp_path, results):
    path = write_study(tmp_path, **LINEAR)
    run = make_run(path, "linear", [0], results)
    process = started("run", results=results, STUDY=path, SCHEDULE="linear", SEED=0)
    wait_until(run.checkpoint.exists, process)
    kernel_of(results).kill()
    output = process.communicate(timeout=30)[0]
    said = "linear-seed0: the kernel died, as one does that is killed or runs out of memory: run it again, "
    lines = [line for line in output.splitlines() if line.startswith(("linear", "Kernel", "Traceback"))]
    assert process.returncode != 0
    assert lines[-1].startswith(said) and f" (see {run.folder}/runs/" in lines[-1]
    assert sum("died" in line for line in output.splitlines()) == 1
    assert checkpoints.load(run.checkpoint)[1]["updates"] > 0
