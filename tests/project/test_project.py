"""What the repository promises of itself: dependencies in agreement, notebooks that call and never define, no paths."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from support.project import ROOT, tracked

CONDA = {
    "jupyter_client": "jupyter-client",
    "pytorch": "torch",
    "matplotlib-base": "matplotlib",
}  # conda-forge's names that differ from PyPI's
# Of what make test runs: the others have what they need from elsewhere.
TESTS = [p for p in ROOT.glob("tests/**/*.py") if p.parent.name not in ("browser", "commands", "faults", "slurm")]
LOCKED_FOR = ("3.11.7", "3.12.11", "3.13.1", "3.14.2")  # the oldest first
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def direct():
    """The direct dependencies by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    return {canonical(r.name): r for r in map(Requirement, lines)}


def lock():
    """Every line of the lock."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "--hash"))]


def locked(python, platform="linux", os_name="posix"):
    """The versions that the lock gives a Python, by name."""
    about = {"python_version": python[:4], "python_full_version": python, "sys_platform": platform}
    about |= {"os_name": os_name, "implementation_name": "cpython", "platform_python_implementation": "CPython"}
    found = [r for r in lock() if r.marker is None or r.marker.evaluate(about)]
    versions = {canonical(r.name): str(r.specifier).removeprefix("==") for r in found}
    assert len(versions) == len(found), "a package is named twice"
    return versions


@pytest.mark.parametrize("python", LOCKED_FOR)
def test_the_lock_holds_every_direct_dependency_at_an_allowed_version(python):
    versions = locked(python)
    for name, requirement in direct().items():
        assert name in versions, name
        assert requirement.specifier.contains(versions[name]), f"{name} {versions[name]}"


def test_the_browser_tests_have_a_lock_of_their_own():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = [Requirement(line) for line in (ROOT / "requirements-browser.txt").read_text().splitlines()]
    assert all([s.operator for s in r.specifier] == ["=="] for r in pinned)
    versions = {canonical(r.name): str(r.specifier).removeprefix("==") for r in pinned}
    for requirement in map(Requirement, project["dependency-groups"]["browser"]):
        assert requirement.specifier.contains(versions[canonical(requirement.name)]), requirement
    assert not versions.keys() & {canonical(r.name) for r in lock()}


def test_the_lock_is_exact_and_names_torch_but_no_cuda_library():
    for requirement in lock():
        assert [s.operator for s in requirement.specifier] == ["=="], requirement
        assert not re.search(r"nvidia|cuda|triton|cublas|cudnn", requirement.name), requirement
        assert "+" not in str(requirement.specifier)
    assert locked("3.11.7")["torch"] == "2.13.0"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = SpecifierSet(project["requires-python"])
    assert all(python in allowed for python in LOCKED_FOR)
    assert "3.10.9" not in allowed and "3.15.0" not in allowed
    assert str(direct()["torch"].specifier) == ">=2.9"


def test_environment_yml_has_the_versions_of_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert (environment["name"], environment["channels"]) == ("grok", ["conda-forge"])
    conda, pip = [], []
    for entry in environment["dependencies"]:
        if isinstance(entry, dict):
            pip += entry["pip"]
        else:
            conda.append(entry)
    given = dict(re.split(r"[=<>]+", entry, maxsplit=1) for entry in conda if not entry.startswith(("pip", "make")))
    python = given.pop("python")
    assert python in ("3.11", "3.12")
    given = {CONDA.get(name, name): version for name, version in given.items()}
    assert pip.pop() == "-e ."  # so that a hosted Jupyter's kernel finds the package
    given |= dict(entry.split("==") for entry in pip)
    versions = locked(f"{python}.9")
    assert given == {name: versions[name] for name in direct()}


def test_the_version_is_that_of_the_citation_and_of_the_changelog():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == version
    assert re.findall(r"^## ([\d.]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[0] == version


def test_what_was_installed_without_the_notebooks_says_so(tmp_path):
    shutil.copytree(ROOT / "grok_utils", tmp_path / "grok_utils", ignore=shutil.ignore_patterns("__pycache__"))
    for command in (["plan", "paper"], ["evidence"]):
        words = [sys.executable, "-m", "grok_utils", *command]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert "runs from a clone of its repository" in done.stderr
        assert done.stderr.endswith(": clone it, then `pip install -e .` there\n")


# --- workflows -----------------------------------------------------------------------------------------------------

WORKFLOWS = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))]
STEPS = [step for workflow in WORKFLOWS for job in workflow["jobs"].values() for step in job["steps"]]


def test_every_command_of_a_workflow_runs_here_too():
    assert {step["run"] for step in STEPS if "run" in step} == {".ci/run", "make test-faults", "make site"}
    # tests/evidence/test_index.py carries out `make site`; the two others would carry out this very test, or long ones.
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    targets = re.findall(r"^ *make ([\w-]+)", script, re.MULTILINE)
    assert targets == ["lint", "test", "test-browser", "test-readme"]
    asked = ["make", "-n", *targets, "test-faults", "VENV=", "PYTHON=true"]
    assert subprocess.run(asked, cwd=ROOT, capture_output=True).returncode == 0


@pytest.mark.parametrize("browser", ["chromium", "apt-get", None])
def test_what_ci_runs_in_its_order_with_and_without_a_browser(tmp_path, browser):
    for name, text in {"make": f'echo "$@" >> {tmp_path}/log', **({browser: ""} if browser else {})}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    done = subprocess.run([ROOT / ".ci" / "run"], env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    targets = ["lint", "test", *(["test-browser"] if browser else []), "test-readme"]
    assert (tmp_path / "log").read_text().split() == targets
    assert done.stdout.startswith("make test-browser: skipped") != bool(browser)


@pytest.mark.parametrize("fails", ["lint", "test"])
def test_ci_ends_with_the_first_target_that_fails(tmp_path, fails):
    (tmp_path / "make").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/log\n[ "$1" != {fails} ]\n')
    (tmp_path / "make").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run([ROOT / ".ci" / "run"], env=environment, capture_output=True).returncode == 1
    assert (tmp_path / "log").read_text().split()[-1] == fails


def test_the_workflows_run_the_oldest_and_the_newest_python_of_the_lock():
    given = {step["with"]["python-version"] for step in STEPS if "python-version" in step.get("with", {})}
    (ends,) = (w["jobs"]["check"]["strategy"]["matrix"]["python"] for w in WORKFLOWS if w["name"] == "ci")
    assert ends == [LOCKED_FOR[i].rsplit(".", 1)[0] for i in (0, -1)]
    assert given == {ends[-1], "${{ matrix.python }}"}


# --- imports and files ---------------------------------------------------------------------------------------------


def test_what_the_package_imports_is_a_direct_dependency():
    owners = importlib.metadata.packages_distributions()
    imported = set()
    for path in [*ROOT.glob("grok_utils/**/*.py"), *ROOT.glob("benchmarks/*.py"), *TESTS]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(node.module.split(".")[0])
    ours = {"grok_utils", "benchmarks", "support"}
    # These come with what is named: nbformat, nbclient, IPython and jinja2 with nbconvert, packaging with pytest, and
    # Triton with PyTorch for CUDA, where alone it is imported.
    with_others = {"nbformat", "nbclient", "ipython", "jinja2", "packaging", "triton"}
    third_party = imported - ours - sys.stdlib_module_names
    names = {canonical(owners.get(module, [module])[0]) for module in third_party}
    assert names - with_others <= direct().keys()


def test_no_file_names_a_path_of_the_machine_it_was_written_on():
    # Written apart, so that this file does not name them itself.
    foreign = [
        "/wo" + "rk/",
        "/ho" + "me/",
        "/Us" + "ers/",
        "../sha" + "red",
        "/ro" + "ot/",
        str(ROOT),
        str(Path.home()) + "/",
    ]
    foreign = [name.encode() for name in foreign if len(name) > 2]
    found = [(p.relative_to(ROOT), name) for p in tracked() for name in foreign if name in p.read_bytes()]
    assert found == []


def test_no_file_is_a_pickle_or_very_large():
    for path in tracked():
        assert path.suffix not in {".pkl", ".pickle", ".npy", ".pt", ".pth"}, path
        assert path.stat().st_size < 5_000_000, path


def test_nothing_is_read_in_a_way_that_could_execute_it():
    unsafe = (
        r"pickle|marshal|shelve|joblib|torch\.(load|save)\b|np\.load|\b(eval|exec)\(|yaml\.(unsafe|full)|\.Loader\b"
    )
    files = [*ROOT.glob("grok_utils/**/*.py"), *NOTEBOOKS]
    assert [p.name for p in files if re.search(unsafe, p.read_text(encoding="utf-8"))] == []


# --- notebooks -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=NOTEBOOKS, ids=lambda p: p.stem)
def notebook(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_there_are_notebooks():
    assert {p.stem for p in NOTEBOOKS} >= {"run", "report"}


def test_a_notebook_is_committed_without_outputs(notebook):
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code(notebook))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"  # works without an installed kernelspec
    assert "papermill" not in notebook["metadata"]


def test_a_notebook_calls_and_never_defines(notebook):
    for cell in code(notebook):
        source = "".join(cell["source"])
        assert len(source.splitlines()) <= 15
        forbidden = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        if "SCHEDULES[" in source:  # explore.ipynb, where a person writes a schedule in one line
            forbidden = forbidden[:-1]
        assert not any(isinstance(node, forbidden) for node in ast.walk(ast.parse(source))), source


def test_a_notebook_has_one_parameters_cell_of_literals(notebook):
    tagged = [cell for cell in code(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    assert tagged == code(notebook)[:1]
    for statement in ast.parse("".join(tagged[0]["source"])).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


def test_run_ipynb_has_the_parameters_of_make_run():
    from grok_utils.pipeline.parameters import make_run

    source = "".join(code(json.loads((ROOT / "notebooks" / "run.ipynb").read_text()))[0]["source"])
    names = [statement.targets[0].id for statement in ast.parse(source).body]
    assert names == [name for name in make_run.__annotations__ if name != "return"]
