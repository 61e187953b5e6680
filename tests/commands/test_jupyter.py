"""The notebooks as a Jupyter user runs them who has never heard of make: a fresh environment, pip, jupyter execute."""

import os
import re
import site
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from support.project import copy_project, environment, shrink

from grok_utils.store.records import read_record

TINY = {"modulus": 11, "updates": 60, "device": "cpu"}


def set_parameters(path: Path, values: dict[str, object]) -> None:
    """Give a notebook other values in its parameters cell, as a person does."""
    notebook = nbformat.read(path, as_version=4)
    cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    for name, value in values.items():
        cell.source, found = re.subn(rf"(?m)^{name} = .*$", lambda _, n=name, v=value: f"{n} = {v!r}", cell.source)
        assert found == 1, name
    nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project in which study `quick` and explore.ipynb are tiny."""
    folder = copy_project(tmp_path_factory.mktemp("clone"))
    shrink(folder / "notebooks" / "studies" / "quick.yaml", most=2)
    set_parameters(folder / "notebooks" / "explore.ipynb", TINY)
    return folder


@pytest.fixture(scope="module")
def variables(tmp_path_factory, project) -> dict[str, str]:
    """The environment variables of a fresh environment, activated, into which pip alone has put the project.

    For the other packages it sees this one's folder, which saves their download; of a folder that a .pth names Python
    reads no .pth, so nothing leads to this very tree.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()))
    script = folder / "bin" / "jupyter-execute"  # as pip writes it with nbclient
    script.write_text(f"#!{folder}/bin/python\nfrom nbclient.cli import main\n\nmain()\n")
    script.chmod(0o755)
    activated = environment() | {"PATH": f"{folder}/bin:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    activated |= {f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    missing = subprocess.run(["python", "-c", "import grok_utils"], cwd=folder, env=activated, capture_output=True)
    assert b"No module named 'grok_utils'" in missing.stderr
    subprocess.run(["pip", "install", "--quiet", "--no-deps", "-e", "."], cwd=project, env=activated, check=True)
    return activated


def jupyter(words: list[str], folder: Path, variables: dict[str, str]) -> None:
    done = subprocess.run(["python", "-m", *words], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("folder", "path"), [(".", "notebooks/{}"), ("notebooks", "{}")])
def test_the_notebooks_run_from_the_root_and_from_their_folder(project, variables, folder, path):
    record = project / "results" / "quick" / "records" / "linear-seed0.parquet"
    record.unlink(missing_ok=True)
    jupyter(["jupyter", "execute", path.format("run.ipynb")], project / folder, variables)
    assert set(read_record(record)[0]["update"]) == {10, 20, 30, 40, 50, 60}
    asked = [path.format("explore.ipynb"), "--output=explored"]
    jupyter(["jupyter", "execute", *asked], project / folder, variables)
    explored = nbformat.read(project / "notebooks" / "explored.ipynb", as_version=4)
    shown = [list(o.get("data", [])) for c in explored.cells if c.cell_type == "code" for o in c.outputs]
    assert len(shown) == 7 and sum("image/svg+xml" in kinds for kinds in shown) == 4
    assert not (project / "results" / "explore" / "checkpoints" / "mine-seed0.safetensors").exists()
    assert not (project.parent / "results").exists() and not (project / "notebooks" / "results").exists()


def test_a_kernel_that_is_started_in_the_root_keeps_to_the_project(project, variables):
    words = ["papermill", "notebooks/run.ipynb", "executed.ipynb", "-p", "results", "../elsewhere"]
    jupyter(words, project, variables)
    assert (project / "elsewhere" / "quick" / "records" / "linear-seed0.parquet").is_file()
