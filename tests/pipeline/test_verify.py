"""make verify: records made here are made again bit for bit, foreign ones to rounding, wrong ones are named."""

import ast
import dataclasses
import shutil

import numpy as np
import pytest
from support.project import ROOT
from support.studies import run_of, small, write_study

from grok_utils.__main__ import main
from grok_utils.errors import Damaged
from grok_utils.measures import MEASURES
from grok_utils.pipeline import verify
from grok_utils.pipeline.parameters import make_run
from grok_utils.pipeline.study_files import load_study
from grok_utils.store.records import read_record, write_record, write_records
from grok_utils.training import train


def test_the_code_that_is_compared_is_all_that_reads_a_study_trains_and_records_and_what_that_imports():
    package, found, left = ROOT / "grok_utils", set(), ["pipeline/study_files", "training", "store/records"]
    while left:
        module = left.pop()
        found.add(module)
        for node in ast.walk(ast.parse((package / f"{module}.py").read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "grok_utils":
                base = "/".join(node.module.split(".")[1:])
                names = [base, *(f"{base}/{alias.name}".lstrip("/") for alias in node.names)]
                left += {name for name in names if (package / f"{name}.py").is_file()} - found
    assert {"model", "engine/gpu/attention"} < found
    idle = {"store/checkpoints", "store/files", "store/provenance", "errors"}  # these decide no number
    assert found - idle == set(verify.CODE)


def test_what_git_says_has_changed():
    if shutil.which("git") is None or verify.changed_since("HEAD") is None:
        pytest.skip("needs git and the project's history")
    empty = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's name of a tree without files
    assert set(verify.changed_since(empty)) == {f"grok_utils/{name}.py" for name in verify.CODE}
    assert verify.changed_since("0" * 40) is None


@pytest.fixture
def study(tmp_path, trained, monkeypatch):
    """A study with the records of `trained`, as if of the code in the tree; the study, its results, its records."""
    monkeypatch.setattr(verify, "changed_since", lambda commit: [])
    records = shutil.copytree(trained[0].folder / "records", tmp_path / "results" / "tiny" / "records")
    for path in records.iterdir():
        change(path, {"dirty": False})
    return load_study(write_study(tmp_path)), tmp_path / "results", records


def change(path, changes, **columns):
    """Write a record again, said to be made otherwise and with other columns, its checksum right."""
    rows, old = read_record(path)
    run = make_run(write_study(path.parents[3]), old["schedule"], [old["seed"]], path.parents[2])
    write_record(run, old["seed"], rows.assign(**columns), [made | changes for made in old["made"]])


def test_a_record_made_here_is_made_again_bit_for_bit(study):
    lines = list(verify.verify(*study[:2]))
    assert lines[0] == "tiny: 2 records, 2 missing; every checksum is right"
    assert lines[1].endswith("the same code is in this tree")
    assert lines[2] in [f"training linear-seed{k} again for up to 60 s" for k in (0, 1)]
    assert lines[3] == f"again: {lines[2].split()[1]}.parquet, updates 1 to 60 of 60"
    assert lines[4:-1] == ["equal means bit for bit: same code, device, path and versions", "equal"]
    assert lines[-1].startswith("tiny: all is well: the records are whole, and this tree makes one of them")


def test_measures_are_made_again_too(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "changed_since", lambda commit: [])
    run = run_of(tmp_path, operations=["x_plus_y", "permutation"], measures=[*MEASURES], every_tenth=["weight_norm"])
    write_records(train(run))
    path = run.record(0)
    about = {"dirty": False}
    rows, old = read_record(path)
    write_record(run, 0, rows, [old["made"][0] | about])
    assert "equal" in list(verify.verify(run.study, run.results))
    write_record(run, 0, rows.assign(gradient_trace=2 * rows["gradient_trace"]), [old["made"][0] | about])
    with pytest.raises(Damaged, match=r"is not what this tree makes, from update 10 on"):
        list(verify.verify(run.study, run.results))


def test_what_takes_a_minute_is_told_before(study, monkeypatch):
    monkeypatch.setattr(verify, "make_trainer", lambda *_: pytest.fail("before it was told"))
    lines = verify.verify(*study[:2])
    assert [next(lines) for _ in range(3)][-1].startswith("training linear-seed")


def test_a_record_of_another_device_is_equal_to_rounding_at_first(study):
    for path in study[2].iterdir():
        losses = read_record(path)[0]["val_loss"]
        factor = np.where(read_record(path)[0]["update"] > 30, 1.5, 1 + 1e-5)  # chaos, later
        change(path, {"device_name": "another", "seeds": [read_record(path)[1]["seed"]]}, val_loss=losses * factor)
    *_, means, equal, _ = verify.verify(*study[:2])
    assert means.startswith("equal means the losses of the first log to 0.1%; from there rounding grows")
    assert "device_name another there, " in means
    assert equal.startswith("equal: the first log to 1.0e-05, and all others up to update 40")


@pytest.mark.parametrize(("factor", "device", "said"), [
    (1 + 1e-6, None, "is not what this tree makes, from update 10 on"),
    (1.002, "another", "is not what this tree makes, its first log differs by 0.20%: check out the code"),
    (np.nan, "another", "is not what this tree makes, its first log differs by inf%: check out the code"),
])  # fmt: skip
def test_a_record_that_is_not_made_again_is_named(study, capsys, monkeypatch, factor, device, said):
    for path in study[2].iterdir():
        rows, metadata = read_record(path)
        change(
            path, {"device_name": device or metadata["made"][0]["device_name"]}, train_loss=rows["train_loss"] * factor
        )
    monkeypatch.setattr(verify, "SECONDS", 0.0)  # the first log tells
    with pytest.raises(Damaged, match=r"linear-seed[01]\.parquet " + said):
        list(verify.verify(*study[:2]))
    path = study[1].parent / "tiny.yaml"
    assert main(["verify", str(path), "--results", str(study[1])]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_study_without_a_record_of_its_arms_has_nothing_to_make_again(study):
    other = load_study(write_study(study[1].parent, arms=small("cyclic")))
    with pytest.raises(Damaged, match=r"holds no records yet: make the runs first, by make all STUDY=tiny$"):
        list(verify.verify(other, study[1]))


def test_the_code_of_a_record_is_compared_with_the_tree_s(monkeypatch):
    said = {"abc": "", "def": "grok_utils/model.py\ngrok_utils/tasks.py"}
    monkeypatch.setattr(verify, "output_of", lambda *command: said.get(command[3]))
    assert verify.code_line("abc", False) == "code: records of commit abc: the same code is in this tree"
    assert verify.code_line("def", False).endswith("since then changed grok_utils/model.py, grok_utils/tasks.py")
    assert verify.code_line("123", False).endswith("this tree has no such commit to compare with")
    assert verify.code_line("", False).startswith("code: records of commit unknown: this tree has no such commit")
    assert "nobody can tell which code that was" in verify.code_line("abc", True)


def test_a_path_that_is_not_here_is_replaced(trained, monkeypatch):
    made = read_record(trained[0].record(0))[1]["made"][0]
    monkeypatch.setattr(verify.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(verify, "has_compiler", lambda device: False)
    here = verify.path_here(made)
    assert dataclasses.asdict(here) == {k: made[k] for k in ("device", "precision", "compiled", "threads")}
    assert verify.path_here(made | {"compiled": True}) == here
    assert verify.path_here(made | {"device": "cuda", "precision": "tf32", "compiled": True, "threads": 3}) == here
