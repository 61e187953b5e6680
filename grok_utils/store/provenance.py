"""Where a record comes from: versions, device, commit."""

import importlib.metadata
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

from grok_utils.store.files import ROOT

PACKAGES = ["torch", "numpy", "pandas", "pyarrow", "scipy", "papermill"]


def output_of(*command: str) -> str | None:
    """What a command prints, run in the project's folder; None where it fails or is not there."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    about = Path("/proc/cpuinfo")  # of Linux
    names = re.findall(r"^model name\s*: (.*)", about.read_text() if about.exists() else "", re.MULTILINE)
    return names[0].strip() if names else platform.processor() or platform.machine()


def provenance(device: str) -> dict[str, Any]:
    """Versions, device, commit, and whether the tree had uncommitted changes, results/ aside (None: no git)."""
    changes = output_of("git", "status", "--porcelain", "--", ".", ":!results")
    versions = {p: _version(p) for p in PACKAGES} | {"python": platform.python_version(), "cuda": torch.version.cuda}
    if device == "cuda":
        versions["triton"] = _version("triton")
        versions["driver"] = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0")
    named = {"commit": output_of("git", "rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}
    return named | {"versions": versions, "device_name": _device_name(device), "platform": platform.system()}
