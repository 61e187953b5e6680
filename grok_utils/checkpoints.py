"""A run's state on disk: safetensors (loading executes no code), whole or absent, checked when read."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor


class Damaged(Exception):
    """One line that names the file and says how to mend it."""


def replace_whole(temporary: Path, path: Path) -> None:
    """Give a completely written file its name, in one step and only once its bytes are on disk."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def digest(tensors: dict[str, Tensor], text: str) -> str:
    """SHA-256 over the names, shapes and bytes of CPU tensors, and over `text`."""
    h = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        h.update(f"{name}{tuple(tensors[name].shape)}{tensors[name].dtype}".encode())
        h.update(tensors[name].numpy())
    return h.hexdigest()


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write `tensors` and JSON-able `metadata` to `path` atomically."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps(metadata, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    save_file(tensors, temporary, {"metadata": text, "sha256": digest(tensors, text)})
    replace_whole(temporary, path)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone, without reading the tensors. Raises Damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return json.loads(file.metadata()["metadata"])
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise Damaged(f"{path} is damaged ({error}): delete it, and the run starts again") from None


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata. Raises Damaged unless every byte of both is as it was written."""
    metadata = read_metadata(path)
    tensors = load_file(path)
    with safetensors.safe_open(path, framework="pt") as file:
        expected = file.metadata().get("sha256")
    if digest(tensors, json.dumps(metadata, sort_keys=True)) != expected:
        raise Damaged(f"{path} is damaged (its checksum differs): delete it, and the run starts again")
    return tensors, metadata
