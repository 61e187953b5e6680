"""The commands of the README and of docs, carried out as they are written in a copy of the project of tiny studies."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from support.project import ROOT, copy_project, environment, shrink

from grok_utils.errors import BadInput
from grok_utils.evidence.members import STUDIES
from grok_utils.page.export import find_chromium

PAGES = [path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]
PROGRAMS = ("make", "pip", "export", "conda", "sbatch")
EXCUSES = ("long", "needs a GPU")  # the words that may follow `not in CI: `
ELSEWHERE = {  # what another test or continuous integration itself carries out: where, and in which words
    "make lab": ("tests/browser/test_jupyterlab.py", '["make", "lab"]'),
    "make test": (".ci/run", "make test\n"),
    "make lint": (".ci/run", "make lint\n"),
    "make test-readme": (".ci/run", "make test-readme\n"),
    "make test-browser": (".ci/run", "    make test-browser "),
    "pip install -e .": ("tests/commands/test_jupyter.py", '"-e", "."'),
}
TRAINS = r"(make|sbatch).* (all|run)\b"  # a command that has a record to make, where that is removed before
# They stand for a cluster, which has tests of its own: a job runs at once and here, and of an array its first task.
STANDS_FOR = {
    "srun": """while [ $# -gt 0 ]; do case $1 in -J) shift 2;; -*) shift;; *) exec "$@";; esac; done""",
    "sbatch": """while [ "$1" != --wrap ]; do shift; done; SLURM_ARRAY_TASK_ID=0 exec sh -c "$2" """,
}


def blocks() -> list[tuple[str, str]]:
    """Each command with what its page says of it, in the pages' order; a command of a block stands on a line."""
    found = []
    for text in (part for page in PAGES for part in re.split(r"(```.*?```)", page, flags=re.DOTALL)):
        if text.startswith("```sh\n"):
            for line in text.splitlines()[1:-1]:
                command, _, comment = line.partition("#")
                found.append((command.strip(), comment))
        elif not text.startswith("```"):
            for match in re.finditer(r"`([^`]+)`", text):
                after = text[match.end() : match.end() + 60]
                found.append((" ".join(match[1].split()), after if after.startswith((" (not in CI", "\n(not")) else ""))
    return [(command, said) for command, said in found if command.split(" ")[0] in PROGRAMS and " " in command]


def excused(command: str, said: str) -> bool:
    """Whether its page marks the command as one that is not carried out here."""
    mark = re.search(r"not in CI: (.*?)[,;)]", f"{' '.join(said.split())})")
    assert mark is None or mark[1] in EXCUSES, f"{command}: {mark[1]!r} is no excuse"
    return mark is not None


COMMANDS = list(dict.fromkeys(c for c, said in blocks() if not excused(c, said) and c not in ELSEWHERE))


def test_nothing_but_the_long_and_the_costly_is_left_out():
    left_out = {command for command, said in blocks() if excused(command, said)}
    assert left_out and all(any(w in c for w in ("cuda", "conda", "bench", "slurm", "faults")) for c in left_out)
    assert len(COMMANDS) >= 25 and {"make select", "make site"} <= set(COMMANDS)
    for where, words in ELSEWHERE.values():
        assert words in (ROOT / where).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """The copy, without most records, those of `paper` among them; `vary`, `sweep` and `mine` are the pages' own."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    studies = folder / "notebooks" / "studies"
    for heading, name in (("Vary anything", "vary"), ("Sweep", "sweep"), ("A study of your own", "mine")):
        (section,) = (page.split(f"\n## {heading}\n")[1] for page in PAGES if f"\n## {heading}\n" in page)
        text = re.search(r"```yaml\n(.*?)```", section, re.DOTALL)[1]
        (studies / f"{name}.yaml").write_text(text, encoding="utf-8")
    for name, most in {"quick": 2, "paper": 2, "vary": None, "sweep": None, "mine": None}.items():
        shrink(studies / f"{name}.yaml", most)
    for record in folder.glob("results/paper/records/*"):
        record.unlink()
    for other in folder.glob("results/*/"):  # the claims are built, the tuned answer waits for records
        if other.name not in ("paper", "small", "bench", "tuned", *STUDIES):
            shutil.rmtree(other)
    (folder / "results" / "paper" / "report.html").unlink()
    return folder


def has_chromium() -> bool:
    try:
        return bool(find_chromium())
    except BadInput:
        return False


def test_every_command_does_what_its_page_says(project, tmp_path):
    variables = environment() | {"DEVICE": "cpu"}
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, body in STANDS_FOR.items():
        (programs / name).write_text(f"#!/bin/sh\necho {name} >>{tmp_path}/submitted\n{body}\n")
        (programs / name).chmod(0o755)
    # An activated environment, for pip.
    variables["PATH"] = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    exported = ""  # an `export` is for the lines that follow it
    printed = {}
    for command in COMMANDS:
        if command.startswith("export "):
            exported = command
            continue
        if command.startswith("make pdf") and not has_chromium():
            warnings.warn(f"{command} was not tried: there is no Chromium here", stacklevel=1)
            continue
        if re.match(TRAINS, command):
            for record in project.glob("results/*/records/linear-seed0.parquet"):
                record.unlink()
        script = "\n".join(["set -e", exported, command])
        done = subprocess.run(script, shell=True, cwd=project, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "\r" not in done.stdout + done.stderr, command
        printed[command] = done.stdout.splitlines()
    results = project / "results"
    assert printed["make quick"][0] == "quick: runs to make: 2"
    assert printed["make quick"][-1] == "quick: read results/quick/report.html"
    assert all((results / name / "report.html").exists() for name in ("quick", "vary", "mine"))
    assert (project / "site" / "index.html").exists()
    assert printed["make all"][-1] == "paper: read results/paper/report.html"
    assert (project / "elsewhere" / "paper" / "report.html").exists()
    assert {path.stem for path in project.glob("results/sweep/runs/*")} == {"baseline-seed0", "linear-seed0"}
    assert "The grid" in (results / "sweep" / "report.html").read_text(encoding="utf-8")
    assert any(line.startswith("again: linear-seed0") for line in printed["make verify RECORD=linear-seed0"])
    for command, lines in printed.items():
        if re.match(TRAINS, command):
            assert any(re.match(r"linear-seed0: done in 0:0\d:\d\d ", line) for line in lines), (command, lines)
    assert printed["make status STUDY=paper"] == ["paper: 2 of 2 records complete; read results/paper/report.html"]
    assert set((tmp_path / "submitted").read_text().split()) == STANDS_FOR.keys()
