"""`make all` on one GPU, from the command to its page: `paper` (nothing compiled before, compiled, MPS) and a sweep."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from grok_utils.pipeline.study_files import load_study
from grok_utils.store.files import ROOT
from grok_utils.store.records import read_record
from grok_utils.studies import runs_of

SWEPT = {
    "arms": {f"constant-{size}": {"batch_size": size} for size in (64, 128, 256, 512)},
    "grid": {"learning_rate": [5.0e-4, 1.0e-3, 2.0e-3, 4.0e-3], "weight_decay": [0.25, 0.5, 1.0, 2.0]},
    "seeds": "500..507",
    "operations": ["x_plus_y", "x_div_y"],
}
MPS = "nvidia-cuda-mps-control"
FIRST = 60  # seconds, after which as good as all of a sweep's time should be training


def time_all(study: str, folder: Path, environment: dict[str, str], **settings: object) -> dict[str, Any]:
    """Carry out `make all` of a study into `folder` and say when, in seconds from the command on, its runs trained.

    `percent` is the share of the time after the first minute in which at least one did; NaN if it took below two.
    Raises SystemExit with make's exit code where it fails, after what it said.
    """
    given = [f"{name}={value}" for name, value in {"DEVICE": "cuda", **settings}.items()]
    # What calls this may be a make itself, and its settings would go before the environment's.
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    command = ["make", "all", f"STUDY={study}", f"RESULTS={folder}", "VENV=", f"PYTHON={sys.executable}", *given]
    started = time.time()
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=ROOT, env=env | environment, **pipes) as made:
        try:
            said, _ = made.communicate()
        except BaseException:  # make passes it on, and the runs leave a checkpoint
            made.terminate()
            raise
    took = time.time() - started
    if made.returncode:
        sys.stderr.buffer.write(said)
        sys.exit(made.returncode)
    runs = list(runs_of(loaded := load_study(study), folder))
    records = [run.record(seed) for run in runs for seed in loaded.seeds]
    lengths = np.array([sum(made["seconds"] for made in read_record(path)[1]["made"]) for path in records])
    ends = np.array([path.stat().st_mtime for path in records]) - started
    moments = np.arange(FIRST, took, 0.1)[:, None]
    training = ((moments >= ends - lengths) & (moments < ends)).any(axis=1)
    models = sum(len(run.members) for run in runs)
    row = {"study": loaded.name, "models": models, "to_page_s": took, "longest_run_s": lengths.max()}
    row |= {"trains_from_s": (ends - lengths).min(), "trains_to_s": ends.max()}
    return row | {
        "percent": 100 * training.mean() if took > 2 * FIRST else np.nan,
        "models_an_hour": 3600 * models / took,
    }


@contextlib.contextmanager
def shared_card(folder: Path) -> Iterator[dict[str, str]]:
    """NVIDIA's MPS, with its sockets in `folder`; yields the environment for it, empty where it does not start."""
    environment = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
    for path in environment.values():
        Path(path).mkdir(parents=True)
    if shutil.which(MPS) is None or subprocess.run([MPS, "-d"], env=os.environ | environment).returncode:
        yield {}
        return
    try:
        yield environment
    finally:
        subprocess.run([MPS], input=b"quit", env=os.environ | environment)


def time_commands() -> Iterator[dict[str, Any]]:
    """One row a `make all`, as soon as it is done; `how` says in what they differ. Without MPS none is under it."""
    with tempfile.TemporaryDirectory() as name:
        folder, how = Path(name), "alone"
        caches = {f"{of}_CACHE_DIR": f"{folder}/{of}" for of in ("TORCHINDUCTOR", "TRITON")}
        for before in ("nothing compiled before", "compiled before"):
            yield {"how": before} | time_all("paper", folder / before, caches, SEEDS_PER_RUN=3)
        sweep = folder / "sweep.yaml"
        sweep.write_text(yaml.safe_dump(SWEPT), encoding="utf-8")
        with shared_card(folder / "mps") as shared:
            if shared:
                how = "under MPS"
                yield {"how": how} | time_all("paper", folder / how, caches | shared, SEEDS_PER_RUN=3)
            settings = {"SEEDS_PER_RUN": 8, "PRECISION": "tf32"}
            yield {"how": f"{how}, tf32"} | time_all(f"{sweep}", folder, caches | shared, **settings)
