"""A run's state on disk: safetensors (loading executes no code), whole or absent, checked when read."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load_file
from safetensors.torch import save as serialized
from torch import Tensor

from grok_utils.errors import Damaged, one_line
from grok_utils.store.files import written_whole


def digest(tensors: dict[str, Tensor], text: str) -> str:
    """SHA-256 over the names, shapes and bytes of CPU tensors, and over `text`."""
    h = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        h.update(f"{name}{tuple(tensors[name].shape)}{tensors[name].dtype}".encode())
        h.update(tensors[name].numpy().data)
    return h.hexdigest()


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write `tensors` and JSON-able `metadata` to `path` atomically."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps(metadata, sort_keys=True)
    stored = {"metadata": text, "metadata_sha256": digest({}, text), "sha256": digest(tensors, text)}
    with written_whole(path) as temporary:
        temporary.write_bytes(serialized(tensors, stored))  # save_file, killed, would leave a file of its own naming


def _read(path: Path) -> dict[str, str]:
    """What is stored beside the tensors, its metadata checked. Raises Damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            stored = file.metadata()
            if digest({}, stored["metadata"]) != stored["metadata_sha256"]:
                raise ValueError("the checksum of its metadata differs")
            return stored
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise Damaged(f"{path} is damaged ({one_line(error)}): it is not used, the run starts again") from None


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata alone, without reading the tensors. Raises Damaged unless they are as they were written."""
    return json.loads(_read(path)["metadata"])


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata. Raises Damaged unless every byte of both is as it was written."""
    stored = _read(path)
    tensors = load_file(path)
    if digest(tensors, stored["metadata"]) != stored.get("sha256"):
        raise Damaged(f"{path} is damaged (its checksum differs): it is not used, the run starts again")
    return tensors, json.loads(stored["metadata"])
