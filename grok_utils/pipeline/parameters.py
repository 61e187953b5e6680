"""The parameters of a run, checked before any work is done."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from grok_utils.engine.machine import on_cuda, require_fit
from grok_utils.errors import require
from grok_utils.pipeline.settings import check, check_seeds
from grok_utils.pipeline.study_files import load_study
from grok_utils.store.files import from_notebook
from grok_utils.studies import Run, Study

CPU_PRECISIONS = "available on a CPU (allowed: float32, bf16)"


def make_run(
    study: str | Study,
    schedule: str,
    seeds: Sequence[int],
    results: str | Path = "results",
    device: str = "auto",
    threads: int = 1,
    precision: str | None = None,
) -> Run:
    """A checked run of a study, or of the one of a name or path, with `precision` in place of its own.

    Raises BadInput with one line for whatever is not allowed.
    """
    loaded = study if isinstance(study, Study) else load_study(study, precision)
    arm = loaded.arm(schedule)
    for name, value in (("device", device), ("threads", threads), ("results", results)):
        check(name, name, value)
    require(arm.settings.precision != "tf32" or device != "cpu", "precision", "tf32", CPU_PRECISIONS)
    return Run(loaded, arm, check_seeds(seeds), Path(results), device, threads)


def on_this_machine(run: Run) -> Run:
    """The run itself, once this machine is known to have the device, precision and memory; else raises BadInput."""
    check("device", "device", run.device)
    available = "available here, PyTorch sees no CUDA GPU (allowed: auto, cpu)"
    require(run.device != "cuda" or on_cuda(run.device), "device", run.device, available)
    require(run.arm.settings.precision != "tf32" or on_cuda(run.device), "precision", "tf32", CPU_PRECISIONS)
    require_fit(run)
    return run


def run_from_parameters(namespace: dict[str, Any]) -> Run:
    """The run that a notebook's parameters cell describes; `namespace` is the notebook's `globals()`.

    papermill only warns of a parameter that the notebook does not have, so a public name that is no parameter of
    `make_run` raises BadInput here, the first time: later the notebook's own names are there too.
    """
    ours = {"In", "Out", "exit", "quit", "open", "get_ipython", "run_from_parameters"}
    allowed = [p for p in make_run.__annotations__ if p != "return"]
    if "_first_time" not in namespace:
        for name in namespace:
            good = name.startswith("_") or name in ours or name in allowed
            require(good, "parameter", name, f"known (allowed: {', '.join(allowed)})")
    for name in ("study", "schedule", "seeds"):
        require(name in namespace, "parameter", name, "given")
    run = make_run(**{k: v for k, v in namespace.items() if k in allowed})
    run = on_this_machine(replace(run, results=from_notebook(run.results)))
    namespace["_first_time"] = False
    return run
