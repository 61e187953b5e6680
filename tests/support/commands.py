"""make, as a user calls it, and what it starts."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil

from support.project import ROOT
from support.studies import small

# Long enough (some 3 s) that a signal comes while it trains.
LONG = {"arms": small("baseline", "linear", hi=8), "seeds": [0], "operations": ["x_plus_y"], "updates": 600}


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


def process_of(results, word):
    """The live process of the study with this word on its command line, or None."""
    for process in processes(results):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            if word in process.cmdline():
                return process
    return None


def kernel_of(results):
    """The process of the kernel."""
    return process_of(results, "ipykernel_launcher")


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
