"""One study on a cluster, made by one `make` after another, each disturbed; in the end it equals an undisturbed one.

The tests are one story in this order: each `make` redoes what the one before it left missing.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from conftest import Cluster, node_of, wait_until
from support.project import ROOT
from support.studies import small

from grok_utils.pipeline.parameters import make_run
from grok_utils.store import checkpoints
from grok_utils.store.records import is_complete, read_study, write_records
from grok_utils.training import train

pytestmark = pytest.mark.slurm

DOCUMENTED = (ROOT / "docs" / "machines.md").read_text(encoding="utf-8")
LAUNCH = "srun -N1 -n1 -c1 -J $@"  # a job's name is Make's target, such as run/linear/0
ARMS = small("baseline", "logarithmic", "linear", hi=8)
GRID = {"learning_rate": [1.0e-3, 4.0e-3]}
STUDY = {"arms": ARMS, "grid": GRID, "seeds": [0, 1], "operations": ["x_plus_y"], "modulus": 11, "updates": 500}


JOBS = [f"run/{arm}/{seed}" for arm in ARMS for seed in (0, 1)]
FIRST, SECOND, FAILING, STOPPED, UNDISTURBED, PENDING = JOBS


@dataclass
class Story:
    """The study, its results and the cluster; `begun` is what the checkpoint of STOPPED said when it was first seen."""

    cluster: Cluster
    study: Path
    results: Path
    begun: dict[str, object] = field(default_factory=dict)
    makes: list[subprocess.Popen] = field(default_factory=list)

    def run(self, job, results=None):
        """The run that a job named `run/ARM/SEED` makes."""
        _, arm, seed = job.split("/")
        return make_run(str(self.study), arm, [int(seed)], results or self.results, "cpu")

    def start(self, jobs):
        """`make all` as a terminal starts it, in a process group of its own."""
        settings = {"VENV": "", "PYTHON": sys.executable, "DEVICE": "cpu", "STUDY": self.study, "RESULTS": self.results}
        command = ["make", f"-j{jobs}", "all", *(f"{k}={v}" for k, v in (settings | {"LAUNCH": LAUNCH}).items())]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        make = subprocess.Popen(command, cwd=ROOT, env=self.cluster.environment, start_new_session=True, **pipes)
        self.makes.append(make)
        return make

    def halted(self, jobs):
        """The kernels of so many jobs, each halted when it had begun to train: what comes next comes in mid-run."""

        halted = {}

        def enough():
            halted.update(self.cluster.kernels())
            for kernel in halted.values():
                kernel.suspend()
            return len(halted) == jobs

        wait_until(enough)
        return halted

    def over(self, make):
        """Once `make` and all jobs are over: exit code, output, the jobs that Make says failed, how each ended."""
        output = make.communicate(timeout=240)[0]
        wait_until(lambda: not self.cluster.queue() and not self.cluster.processes())
        failed = set(re.findall(r"^make\[\d\]: \*\*\* \[.*(run/\w+/\d)\] Error", output, re.MULTILINE))
        return make.returncode, output, failed, self.cluster.ended(make.pid)

    def left(self):
        """The jobs whose records are there, and those with a checkpoint; nothing that is there is damaged."""
        complete = {job for job in JOBS if is_complete(self.run(job), 0 if job.endswith("0") else 1)}
        begun = {job for job in JOBS if self.run(job).checkpoint.exists()}
        for job in begun:
            checkpoints.load(self.run(job).checkpoint)
        return complete, begun


@pytest.fixture(scope="module")
def story(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    story = Story(cluster, folder / "tiny.yaml", folder / "results")
    yield story
    for make in story.makes:  # after a failed test one would go on submitting jobs
        with contextlib.suppress(ProcessLookupError):
            os.killpg(make.pid, signal.SIGKILL)


def test_the_documented_lines_are_accepted(cluster):
    lines = re.findall(r"LAUNCH='(srun [^']*)'|^(sbatch .*)$", DOCUMENTED, re.MULTILINE)
    assert len(lines) == 3
    for line in map("".join, lines):
        program, *options = shlex.split(line.replace("$@", "run/linear/0"))
        command = ["true"] if program == "srun" else []
        answer = cluster.ask(program, "--test-only", *options, *command)
        assert re.match(rf"{program}: Job \d+ to start at .* on nodes n[12] in partition (main|gpu)$", answer), answer


def test_ctrl_c_once_takes_the_pending_job_back_and_waits_for_the_running_ones(story):
    story.cluster.ask("scontrol", "update", "NodeName=n[1-2]", "State=DRAIN", "Reason=full")
    make = story.start(jobs=3)
    wait_until(lambda: story.cluster.queue() == dict.fromkeys([FIRST, SECOND, FAILING], "PENDING"))
    story.cluster.ask("scontrol", "hold", f"jobname={FAILING}")  # chance would choose which of the three waits
    story.cluster.ask("scontrol", "update", "NodeName=n[1-2]", "State=RESUME")
    kernels = story.halted(2)
    assert kernels.keys() == {FIRST, SECOND}
    os.killpg(make.pid, signal.SIGINT)
    wait_until(lambda: story.cluster.queue() == dict.fromkeys(kernels, "RUNNING"))
    for kernel in kernels.values():
        kernel.resume()
    code, output, _, ended = story.over(make)
    assert code not in (0, None)
    assert "runs to make: 6\n" in output
    assert "Traceback" not in output
    assert ended == {FIRST: "COMPLETED", SECOND: "COMPLETED", FAILING: "CANCELLED"}
    assert story.left() == ({FIRST, SECOND}, set())


def test_a_failing_run_and_scancel_of_a_running_and_of_a_pending_job_fail_only_themselves(story):
    lock = story.run(FAILING).checkpoint.with_suffix(".lock")
    lock.mkdir(parents=True)  # cannot be opened, so this run fails at once; UNDISTURBED takes its node
    make = story.start(jobs=2)
    kernels = story.halted(2)
    assert kernels.keys() == {STOPPED, UNDISTURBED}
    assert {node_of(kernel) for kernel in kernels.values()} == {"n1", "n2"}
    story.cluster.ask("scontrol", "update", "NodeName=n[1-2]", "State=DRAIN", "Reason=full")  # what comes next, waits
    story.cluster.ask("scancel", f"--name={STOPPED}")  # it wakes the kernel, too
    wait_until(lambda: story.cluster.queue().get(PENDING) == "PENDING")
    story.cluster.ask("scancel", f"--name={PENDING}")
    kernels[UNDISTURBED].resume()
    code, output, failed, ended = story.over(make)
    lock.rmdir()
    story.cluster.ask("scontrol", "update", "NodeName=n[1-2]", "State=RESUME")
    assert code == 2
    assert "runs to make: 4\n" in output
    assert failed == {FAILING, STOPPED, PENDING}
    assert ended == {FAILING: "FAILED", STOPPED: "CANCELLED", UNDISTURBED: "COMPLETED", PENDING: "CANCELLED"}
    assert story.left() == ({FIRST, SECOND, UNDISTURBED}, {STOPPED})
    story.begun |= checkpoints.read_metadata(story.run(STOPPED).checkpoint)
    assert 0 < story.begun["updates"] < STUDY["updates"]


def test_ctrl_c_takes_pending_jobs_back_and_twice_ends_the_running_ones(story):
    make = story.start(jobs=3)
    running = story.halted(2).keys()
    os.killpg(make.pid, signal.SIGINT)
    wait_until(lambda: story.cluster.queue() == dict.fromkeys(running, "RUNNING"))
    time.sleep(1.5)  # to srun, two within a second are one request to end
    assert story.cluster.kernels().keys() == running
    for _ in range(2):
        os.killpg(make.pid, signal.SIGINT)
        time.sleep(0.3)
    code, output, _, ended = story.over(make)
    assert code not in (0, None)
    assert "runs to make: 3\n" in output
    assert "Traceback" not in output
    assert ended == dict.fromkeys([FAILING, STOPPED, PENDING], "CANCELLED")
    assert story.left() == ({FIRST, SECOND, UNDISTURBED}, {STOPPED})


def test_a_lost_node_is_a_failure_although_srun_exits_with_0(story):
    make = story.start(jobs=2)
    kernels = story.halted(2)
    assert kernels.keys() == {STOPPED, FAILING}  # what was begun goes first
    lost = node_of(kernels[STOPPED])
    story.cluster.lose(lost)
    kernels[FAILING].resume()
    code, output, failed, ended = story.over(make)
    assert code == 2
    assert "runs to make: 3\n" in output
    assert f"{STOPPED}: ended without its record: make it again" in output
    assert failed == {STOPPED}
    assert ended == {STOPPED: "NODE_FAIL", FAILING: "COMPLETED", PENDING: "COMPLETED"}
    assert story.left() == (set(JOBS) - {STOPPED}, {STOPPED})
    story.cluster.start_node(lost)


def test_sigkill_of_make_leaves_a_job_for_which_the_next_make_waits(story):
    wait_until(story.cluster.idle)  # the lost node is back
    story.cluster.ask("scontrol", "update", "NodeName=n[1-2]", "State=DRAIN", "Reason=full")
    make = story.start(jobs=3)
    wait_until(lambda: story.cluster.queue() == {STOPPED: "PENDING"})
    make.kill()  # it alone: the make that it started and that one's srun live on, and the job runs when it can
    assert make.wait(240) == -signal.SIGKILL
    story.cluster.ask("scontrol", "update", "NodeName=n[1-2]", "State=RESUME")
    (kernel,) = story.halted(1).values()
    os.killpg(make.pid, signal.SIGKILL)  # now these, too: the job goes on without them
    assert "runs to make: 1\n" in make.communicate(timeout=240)[0]
    make = story.start(jobs=3)
    lines = []
    for line in make.stdout:
        lines.append(line)
        if "waiting" in line:
            kernel.resume()
    assert make.wait(240) == 0
    assert lines[0].endswith("runs to make: 1\n")
    assert lines[2:] == [
        "logarithmic-seed1: another process is working on it; waiting\n",
        "logarithmic-seed1: found complete\n",
        f"tiny: read {story.results}/tiny/report.html\n",
    ]
    assert story.cluster.ended(make.pid) == {STOPPED: "COMPLETED"}
    assert story.left() == (set(JOBS), set())


def test_the_records_are_those_of_an_undisturbed_study(story, tmp_path):
    for job in JOBS:
        write_records(train(story.run(job, tmp_path)))
    study = story.run(JOBS[0], tmp_path).study
    (made, about), (expected, undisturbed) = (read_study(study, folder) for folder in (story.results, tmp_path))
    assert made.equals(expected)
    for one, other in zip(about, undisturbed, strict=True):
        assert {k for k in one | other if one.get(k) != other.get(k)} <= {"made"}
        (one,), (other,) = one["made"], other["made"]
        assert {k for k in one | other if one.get(k) != other.get(k)} <= {"started", "seconds"}
    (stopped,) = (m["made"][0] for m in about if (m["schedule"], m["seed"]) == ("logarithmic", 1))
    assert stopped["started"] == story.begun["started"]  # it was resumed, each time
    assert stopped["seconds"] > story.begun["seconds"]
