"""The kernel of a notebook: started before this process loads what it needs itself, so that both load side by side."""

import os
import tempfile

from jupyter_client.manager import AsyncKernelManager
from jupyter_client.utils import run_sync

from grok_utils.store.files import NOTEBOOKS

# What any notebook waits for; its own names are still its own.
LOADS = "import grok_utils.page.figures, grok_utils.store.records, grok_utils.training; del grok_utils"
# No warnings of TCP here, and of our interrupt; no file of its history.
ARGUMENTS = ["--IPKernelApp.log_level=50", "--HistoryManager.hist_file=:memory:", f"--IPKernelApp.exec_lines={LOADS}"]


class Kernel:
    """A kernel in the folder of the notebooks, with `threads` of its own, which is ended by `stop`."""

    def __init__(self, threads: int | None = None) -> None:
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        # No start-up file of the user's runs, and the home need not be writable.
        own = {"IPYTHONDIR": self.profile.name} | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
        self.manager = AsyncKernelManager(kernel_name="python3")
        run_sync(self.manager.start_kernel)(cwd=str(NOTEBOOKS), env=os.environ | own, extra_arguments=ARGUMENTS)

    def stop(self) -> None:
        """End the kernel at once: asked politely it takes seconds to go, and by then it has nothing left to save."""
        run_sync(self.manager.shutdown_kernel)(now=True)
        self.profile.cleanup()
