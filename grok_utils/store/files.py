"""Files that appear whole or not at all, and where the project is."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from grok_utils.errors import BadInput, with_remedy

ROOT = Path(__file__).resolve().parents[2]  # of the project: its repository
NOTEBOOKS = ROOT / "notebooks"


def require_clone() -> None:
    """Raise BadInput where the package is installed without the notebooks and the studies, as from a wheel."""
    if not (NOTEBOOKS / "run.ipynb").is_file():
        says = "grok_utils runs from a clone of its repository, which has the notebooks and the studies"
        raise BadInput(f"{says}: clone it, then `pip install -e .` there")


def from_notebook(path: Path | str) -> Path:
    """The path that a notebook names, which counts from notebooks/, wherever the kernel was started."""
    require_clone()
    return Path(path) if os.path.isabs(path) else Path(os.path.relpath(NOTEBOOKS / path))


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as `written_whole` has it."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield the temporary name to write to: afterwards `path` is all of it, or as it was and OSError says why.

    The file gets its name in one step, and only once its bytes are on disk.
    """
    temporary = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = f"[Errno {error.errno}] {os.strerror(error.errno)}" if error.errno else error  # no temporary name
        raise OSError(f"{path} cannot be written: {with_remedy(reason)}") from None
    finally:
        with contextlib.suppress(OSError):  # it is not there after success, nor where its folder is none
            temporary.unlink(missing_ok=True)  # half a file would keep a full disk full
