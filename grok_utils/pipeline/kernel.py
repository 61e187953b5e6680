"""The kernel of a notebook: started before this process loads what it needs itself, so that both load side by side."""

import os
import tempfile

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.utils import run_sync

from grok_utils.store.files import NOTEBOOKS

# What any notebook waits for. An interrupt meanwhile, which the kernel would not see, ends it; no name is left behind.
BEFORE = (
    "import signal; ignored = signal.signal(signal.SIGINT, signal.SIG_DFL)",
    "import grok_utils.page.figures, grok_utils.store.records, grok_utils.training",
)
AFTER = "signal.signal(signal.SIGINT, ignored); del ignored, signal, grok_utils"
# No warnings of TCP here, and of our interrupt; no file of its history.
ARGUMENTS = ["--IPKernelApp.log_level=50", "--HistoryManager.hist_file=:memory:"]


class Kernel:
    """A kernel in the folder of the notebooks, with `threads` of its own, which is ended by `stop`.

    As it starts it executes `ahead` too, what its notebook would wait for.
    """

    def __init__(self, threads: int | None = None, ahead: str = "pass") -> None:
        self.threads, self.profile = threads, tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        # No start-up file of the user's runs, and the home need not be writable: of the kernel, and of papermill here.
        os.environ["IPYTHONDIR"] = self.profile.name
        own = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
        self.manager = AsyncKernelManager(kernel_name="python3")
        lines = [f"--IPKernelApp.exec_lines={line}" for line in (*BEFORE, ahead, AFTER)]
        run_sync(self.manager.start_kernel)(cwd=str(NOTEBOOKS), env=os.environ | own, extra_arguments=ARGUMENTS + lines)

    def stop(self) -> None:
        """End the kernel at once: asked politely it takes seconds to go, and by then it has nothing left to save."""
        run_sync(self.manager.shutdown_kernel)(now=True)
        self.profile.cleanup()
