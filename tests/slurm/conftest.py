"""A SLURM cluster of two nodes on this machine: real daemons, everything they need and leave in a temporary folder."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 Gres=gpu:1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 Gres=gpu:1
ReturnToService=2
PartitionName=main Nodes=n[1-2] Default=YES
PartitionName=gpu Nodes=n[1-2]
"""
GPUS = "NodeName=n[1-2] Name=gpu File=/dev/null\n"  # to be counted, not to be used


def wait_until(condition: Callable[[], object], seconds: float = 240.0) -> None:
    """Wait until `condition` holds; the test fails where it takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s"
        time.sleep(0.05)


def node_of(process: psutil.Process) -> str:
    """The node that a job's process is on."""
    return process.environ()["SLURMD_NODENAME"]


@dataclass(frozen=True)
class Cluster:
    """The nodes n1 and n2, a CPU each; `environment` is that of whoever speaks to them."""

    folder: Path
    environment: dict[str, str]
    daemons: dict[str, subprocess.Popen] = field(default_factory=dict)

    def ask(self, *command: str) -> str:
        """What a SLURM command prints, whether or not it succeeds."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.run(command, env=self.environment, timeout=30, **pipes).stdout.strip()

    def queue(self) -> dict[str, str]:
        """The jobs that are not over: their states by their names."""
        return dict(line.split() for line in self.ask("squeue", "-h", "-o", "%j %T").splitlines())

    def ended(self, make: int) -> dict[str, str]:
        """How the jobs ended that a make (its process group) submitted: their states by their names."""
        lines = self.ask("scontrol", "-o", "show", "job").splitlines()
        jobs = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
        return {job["JobName"]: job["JobState"] for job in jobs if job["AllocNode:Sid"].endswith(f":{make}")}

    def processes(self, of: str = "SLURMD_NODENAME") -> list[psutil.Process]:
        """The live processes of all jobs; of="SLURM_CONF": the daemons and whoever speaks to them, too."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                environment = process.environ()
                ours = environment.get("SLURM_CONF") == self.environment["SLURM_CONF"]
                if ours and of in environment and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def kernels(self) -> dict[str, psutil.Process]:
        """The kernels that train, by their jobs' names. A kernel catches SIGTERM while it trains, and only then."""
        found = {}
        for process in self.processes():
            with contextlib.suppress(OSError, psutil.Error):
                caught = re.search(r"SigCgt:\s(\w+)", Path(f"/proc/{process.pid}/status").read_text())[1]
                if "ipykernel_launcher" in process.cmdline() and int(caught, 16) >> signal.SIGTERM - 1 & 1:
                    found[process.environ()["SLURM_JOB_NAME"]] = process
        return found

    def lose(self, node: str) -> None:
        """End all that runs on a node, as a power cut does. SLURM is told, which else takes half a minute to see it."""
        self.daemons[node].kill()
        lost = [process for process in self.processes() if node_of(process) == node]
        steps = {parent for process in lost for parent in process.parents() if parent.name() == "slurmstepd"}
        for process in [*steps, *lost]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def start(self, name: str, *command: str) -> None:
        """Start a daemon, in the foreground."""
        with open(self.folder / f"{name}.log", "a") as log:
            self.daemons[name] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def start_node(self, node: str) -> None:
        """Start a node, for the first time or after its loss."""
        self.start(node, "slurmd", "-D", "-N", node)

    def idle(self) -> bool:
        """Whether both nodes wait for jobs."""
        return self.ask("sinfo", "-h", "-p", "main", "-o", "%D %t") == "2 idle"

    def stop(self) -> None:
        """End all jobs, then the daemons."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.ask("scancel", "--user=root")
            wait_until(lambda: not self.processes(), 10)
        for process in self.processes():
            process.kill()
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()


def free_ports(number: int) -> list[int]:
    """Ports on which nothing listens."""
    with contextlib.ExitStack() as stack:
        listening = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [s.getsockname()[1] for s in listening]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster, idle; stopped at the end whatever happens."""
    if os.geteuid() != 0:
        pytest.skip("SLURM's daemons are started as root")
    absent = [name for name in ("munged", "slurmctld", "slurmd", "srun") if shutil.which(name) is None]
    if absent:
        pytest.skip(f"SLURM is not installed (on Debian make test-slurm does it): no {', '.join(absent)}")
    folder = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname().split(".")[0]
    (folder / "state").mkdir()
    (folder / "slurm.conf").write_text(CONFIGURATION.format(host=host, folder=folder, ports=free_ports(3)))
    (folder / "gres.conf").write_text(GPUS)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    foreign = ("MAKE", "MFLAGS", "PYTHONPATH", "SLURM")  # of a surrounding make or job
    environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    cluster = Cluster(folder, environment | {"SLURM_CONF": str(folder / "slurm.conf")})
    try:
        files = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("key", "log", "pid", "seed")]
        # --force: it would have others than root enter its folder.
        cluster.start("munged", "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files)
        wait_until((folder / "munge.socket").exists)
        cluster.start("slurmctld", "slurmctld", "-D")
        for node in ("n1", "n2"):
            cluster.start_node(node)
        wait_until(cluster.idle)
        yield cluster
    finally:
        cluster.stop()
        wait_until(lambda: not cluster.processes(of="SLURM_CONF"), 10)  # nothing of it outlives the tests
