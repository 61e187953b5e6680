"""The house: which wing knows which, how large a wing is, and what stands in one place."""

import ast
import re
from graphlib import TopologicalSorter

from support.project import ROOT

PACKAGE = ROOT / "grok_utils"
WINGS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
SCIENCE = ("tasks", "schedules", "optimizers", "measures", "model", "studies")
UPWARDS = ("errors", "science", "engine", "store", "training", "pipeline", "page")  # each knows those before it


def place(module: str) -> str:
    """The wing of `engine.stack`, say, or what else a module at the top is."""
    name = module.split(".")[0]
    return "science" if name in SCIENCE else name


def knows() -> dict[str, set[str]]:
    """What each wing, the science and each other module at the top import of the others, at its top or later."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        here = place(".".join(path.relative_to(PACKAGE).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "grok_utils":
                of = node.module.removeprefix("grok_utils").lstrip(".")
                modules = [of] if of else [alias.name for alias in node.names]
                found.setdefault(here, set()).update(map(place, modules))
    return {here: there - {here} for here, there in found.items()}


def test_no_wing_points_back_and_there_is_no_circle():
    graph = knows()
    assert {*WINGS, "science", "training"} <= graph.keys() | {there for of in graph.values() for there in of}
    TopologicalSorter(graph).prepare()  # raises CycleError
    back = [(a, b) for i, a in enumerate(UPWARDS) for b in UPWARDS[i:] if b in graph.get(a, ())]
    assert back == []
    assert graph["analysis"] <= {"science", "errors"}


def test_a_wing_has_at_most_eight_modules_and_says_what_comes_in_and_goes_out():
    for wing in {path.parent for path in PACKAGE.glob("*/**/*.py")}:
        assert len([path for path in wing.glob("*.py") if path.name != "__init__.py"]) <= 8, wing
        about = ast.get_docstring(ast.parse((wing / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert re.search(r"\b[Ii]n\b", about) and re.search(r"\b[Oo]ut\b", about), wing


def test_the_switches_of_pytorchs_process_are_set_in_one_place():
    switch = r"torch\.set_\w+\(|torch\.(?:_inductor|_dynamo|compiler)\.config\.\w+ =|torch\.backends\.[\w.]+ ="
    files = [*ROOT.glob("grok_utils/**/*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob("notebooks/*.ipynb")]
    found = [path.relative_to(ROOT) for path in files if re.search(switch, path.read_text(encoding="utf-8"))]
    assert list(map(str, found)) == ["grok_utils/engine/machine.py"]
