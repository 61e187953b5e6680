"""Processes that begin with the package loaded: they come from one that has loaded it, a process of tests once."""

import multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "pytest",
        "grok_utils.__main__",
        "grok_utils.page.export",
        "grok_utils.pipeline.execution",
        "grok_utils.training",
        "torch.fx.experimental.symbolic_shapes",  # which the first gradient loads
    ]
)
