"""What goes on beside this process: the kernel of a notebook, which loads while it does, and a command to wait for."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable
from types import FrameType

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.utils import run_sync

from grok_utils.store.files import NOTEBOOKS

# What any notebook waits for. An interrupt meanwhile, which the kernel would not see, ends it; no name is left behind.
BEFORE = "import grok_utils, signal; ignored = signal.signal(signal.SIGINT, signal.SIG_DFL)"
NEEDED = "import grok_utils.page.figures, grok_utils.store.records, grok_utils.training"
AFTER = "signal.signal(signal.SIGINT, ignored); del ignored, signal, grok_utils"
LOOK_SECONDS = 1.0  # between two looks whether a command that is waited for is nearly done
# No warnings of TCP here, and of our interrupt; no file of its history.
ARGUMENTS = ["--IPKernelApp.log_level=50", "--HistoryManager.hist_file=:memory:"]


class Kernel:
    """A kernel in the folder of the notebooks, with `threads` of its own, from its `start` until its `stop`.

    As it starts it executes `ahead` too, what its notebook would wait for.
    """

    def __init__(self, threads: int | None = None, ahead: str = "pass") -> None:
        self.threads, self.ahead, self.profile = threads, ahead, tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        # No start-up file of the user's runs, and the home need not be writable: of the kernel, and of papermill here.
        os.environ["IPYTHONDIR"] = self.profile.name
        self.manager = AsyncKernelManager(kernel_name="python3")

    def start(self) -> "Kernel":
        """Start it, where that has not been done, without waiting for it; returns it."""
        if not self.manager.has_kernel:
            own = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
            lines = [f"--IPKernelApp.exec_lines={line}" for line in (BEFORE, self.ahead, NEEDED, AFTER)]
            start = run_sync(self.manager.start_kernel)
            start(cwd=str(NOTEBOOKS), env=os.environ | own, extra_arguments=ARGUMENTS + lines)
        return self

    def stop(self) -> None:
        """End the kernel at once: asked politely it takes seconds to go, and by then it has nothing left to save."""
        if self.manager.has_kernel:
            run_sync(self.manager.shutdown_kernel)(now=True)
        self.profile.cleanup()


def wait_for(command: list[str], nearly: Callable[[], bool], meanwhile: Callable[[], object]) -> int:
    """Carry out `command`, and `meanwhile()` once, as soon as `nearly()` is found true; returns its exit code.

    SIGTERM is passed on to it; an interrupt, which a terminal sends it as well, is left to it.
    """
    child: subprocess.Popen[bytes] | None = None
    received = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if child:
            child.send_signal(number)

    # Handlers, unlike signals that are ignored, are not handed down.
    before = {signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        child = subprocess.Popen(command, close_fds=False)  # make hands its jobs down by open files
        if received:  # before there was anything to pass it on to
            child.send_signal(received[0])
        seconds: float | None = LOOK_SECONDS
        while True:
            try:
                code = child.wait(seconds)
                return code if code >= 0 else 128 - code
            except subprocess.TimeoutExpired:
                if not received and nearly():
                    meanwhile()
                    seconds = None
    finally:
        if child:
            child.wait()  # whatever went wrong here, it is not left behind
        for number, handler in before.items():
            signal.signal(number, handler)
