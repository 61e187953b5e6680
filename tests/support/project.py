"""A copy of the project as a clone would be, for tests that carry out what the README and the Makefile say."""

import os
import shutil
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def tracked() -> list[Path]:
    """The files of the repository: tracked, or new and not ignored; all files where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = [p for p in ROOT.rglob("*") if not {".venv", ".cache", "results"} & set(p.relative_to(ROOT).parts)]
    return [p for p in paths if p.is_file()]


def copy_project(folder: Path) -> Path:
    """`folder` with a copy of the repository's files."""
    for path in tracked():
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return folder


def shrink(study: Path, most: int | None = None) -> None:
    """Make the study file tiny: one operation on 11 residues, a seed, 60 updates, small batches; `most` arms."""
    values = yaml.safe_load(study.read_text(encoding="utf-8"))
    values |= {"operations": ["x_plus_y"], "seeds": [0], "modulus": 11, "updates": 60}
    arms = values.pop("arms", None) or dict.fromkeys(values.pop("schedules", []))
    values["arms"] = {name: shrunk(name, settings or {}) for name, settings in islice(arms.items(), most)}
    study.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def shrunk(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The arm's settings with small batch sizes, with windows and lengths within 60 updates, without its own grid."""
    own = settings.get("batch_size", 512 if name == "baseline" or settings else {"schedule": name})
    small = {"batch_size": own | {"lo": 4, "hi": 16} if isinstance(own, dict) else 8}
    kept = {k: v for k, v in settings.items() if k not in ("operations", "grid")} | small
    within = {"window": 40, "length": 60}
    return {k: v | {n: u for n, u in within.items() if n in v} if isinstance(v, dict) else v for k, v in kept.items()}


def environment() -> dict[str, str]:
    """What makes `make` use this very Python; without what a surrounding make has set."""
    left_out = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PYTHONPATH")
    return {k: v for k, v in os.environ.items() if k not in left_out} | {"VENV": "", "PYTHON": sys.executable}
