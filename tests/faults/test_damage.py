"""Damaged, foreign, old and renamed files: named, and mended or refused, never used. 1,000 mutations each."""

import dataclasses
import json
import random
import shutil
import string

import pandas as pd
import pytest
import torch
from support.studies import interrupted, mutate, outcome, run_of, small, write_study

from grok_utils.errors import BadInput, Damaged
from grok_utils.pipeline.parameters import make_run
from grok_utils.pipeline.study_files import load_study
from grok_utils.store import checkpoints
from grok_utils.store.records import is_complete, read_record

MUTATIONS = 1000


def judged(path, content, read, same):
    """How many of MUTATIONS of the file `content` are refused; `same` judges what is read of the others."""
    refused = 0
    for seed in range(1000, 1000 + MUTATIONS):
        path.write_bytes(mutate(content, seed))
        try:
            found = read(path)
        except Damaged as error:
            assert str(path) in str(error)
            assert len(str(error).splitlines()) == 1
            refused += 1
        else:
            assert same(found), seed
    return refused


def test_no_mutation_of_a_record_is_read_as_another(tmp_path, trained):
    path = tmp_path / "linear-seed0.parquet"
    rows, metadata = read_record(trained[0].record(0))
    same = lambda found: found[0].equals(rows) and found[1] == metadata  # noqa: E731
    assert judged(path, trained[0].record(0).read_bytes(), read_record, same) > MUTATIONS // 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    run = run_of(tmp_path_factory.mktemp("checkpoint"), operations=["x_plus_y"])
    with pytest.MonkeyPatch.context() as patch:
        interrupted(run, patch)
    return run


def test_no_mutation_of_a_checkpoint_is_read_as_another(tmp_path, checkpoint):
    content = checkpoint.checkpoint.read_bytes()
    tensors, metadata = checkpoints.load(checkpoint.checkpoint)

    def same(found):
        return found[1] == metadata and all(torch.equal(found[0][name], t) for name, t in tensors.items())

    path = tmp_path / "changed.safetensors"
    assert judged(path, content, checkpoints.load, same) > 0.9 * MUTATIONS
    head = content[:6000]  # of the metadata, which are read alone too
    read = lambda path: checkpoints.read_metadata(path)  # noqa: E731
    for seed in range(300):
        changed = bytearray(head)
        changed[random.Random(seed).randrange(len(head))] ^= 1 << seed % 8
        path.write_bytes(changed + content[6000:])
        try:
            assert read(path) == metadata
        except Damaged as error:
            assert str(path) in str(error)


def test_a_changed_study_file_is_refused_or_its_records_are(tmp_path, trained):
    # A study is text that people change: what is no mistake is allowed, and then no old record passes for it.
    run = trained[0]
    path = write_study(tmp_path)
    content = (tmp_path / "tiny.yaml").read_text()
    refused = other = 0
    for seed in range(300):
        rng = random.Random(seed)
        at = rng.randrange(len(content))
        kind = seed % 3
        changed = content[:at] if kind == 0 else content[:at] + rng.choice(string.printable) + content[at + kind - 1 :]
        (tmp_path / "tiny.yaml").write_text(changed)
        try:
            again = make_run(path, "linear", [0], str(run.results), "cpu")
            complete = is_complete(again, 0)
        except (BadInput, Damaged) as error:
            assert len(str(error).splitlines()) == 1
            refused += isinstance(error, BadInput)
            other += isinstance(error, Damaged)
        else:
            assert complete and again.identity == run.identity
    assert refused > 100
    assert other >= 5


def test_damaged_notebooks_figures_tables_and_pages_are_made_anew(tmp_path, trained, capsys):
    path, results = write_study(tmp_path, arms=small("linear")), tmp_path / "results"
    shutil.copytree(trained[0].folder / "records", results / "tiny" / "records")
    assert outcome(capsys, "report", path, "--results", results)[0] == 0
    made = [p for p in (results / "tiny").rglob("*") if p.suffix in (".html", ".svg", ".csv")]
    before = {p: p.read_bytes() for p in made}
    assert len(made) > 10
    for i, p in enumerate([*made, results / "tiny" / "report.ipynb", results / "tiny" / "report.part.ipynb"]):
        p.write_bytes(mutate(p.read_bytes() if p.exists() else b"{", 2 * i))
    assert outcome(capsys, "report", path, "--results", results)[0] == 0
    assert {p: p.read_bytes() for p in made} == before
    notebook = (results / "tiny" / "report.ipynb").read_bytes()
    assert json.loads(notebook)["cells"]
    # A run's notebook is a log that nothing reads: half of one changes nothing, and is nobody's to mend.
    asked = [(command, path, "--results", results) for command in ("plan", "status", "report")]
    said = [outcome(capsys, *words) for words in asked]
    logs = [results / "tiny" / "runs" / f"{name}.ipynb" for name in ("linear-seed0", "linear-seeds0-1")]
    logs[0].parent.mkdir()
    for log in logs:
        log.write_bytes(notebook[: len(notebook) // 2])
    assert [outcome(capsys, *words) for words in asked] == said
    assert {p: p.read_bytes() for p in made} == before
    assert all(log.read_bytes() == notebook[: len(notebook) // 2] for log in logs)


def test_what_is_renamed_or_of_another_study_or_schema_is_named(tmp_path, trained, capsys):
    path, results = write_study(tmp_path), tmp_path / "results"
    records = shutil.copytree(trained[0].folder / "records", results / "tiny" / "records")

    def said(file, path=path):
        answers = [outcome(capsys, c, path, "--results", results) for c in ("plan", "status", "report", "verify")]
        assert {(code, len(err)) for code, _, err in answers} == {(1, 1)}, answers
        assert all(str(file) in err[0] for _, _, err in answers)
        return answers[0][2][0]

    records.joinpath("linear-seed0.parquet").rename(records / "baseline-seed0.parquet")
    assert "holds schedule linear, seed 0: give it back its name" in said(records / "baseline-seed0.parquet")
    records.joinpath("baseline-seed0.parquet").rename(records / "linear-seed0.parquet")
    write_study(tmp_path, weight_decay=0.25)
    assert "from update 1 on (0.5 there, 0.25 in the study)" in said(records / "linear-seed0.parquet")
    write_study(tmp_path)
    other = shutil.copytree(records, results / "other" / "records") / "linear-seed0.parquet"
    told = said(other, write_study(tmp_path, name="other"))  # of the same settings
    assert "is of study tiny, not of other: move it away" in told
    # A checkpoint under another run's name is not begun work of that run.
    run = run_of(tmp_path, operations=["x_plus_y", "x_minus_y"])
    with pytest.MonkeyPatch.context() as patch:
        interrupted(run, patch)
    other = dataclasses.replace(run, arm=load_study(path).arm("baseline"))
    run.checkpoint.rename(other.checkpoint)
    code, out, err = outcome(capsys, "run", path, "--results", results, "--schedule", "baseline", "--seeds", "0")
    said = f"{other.checkpoint} was made with other settings: it is not used, the run starts again"
    assert (code, len(out), err) == (0, 1, [said])
    undisturbed = dataclasses.replace(other, results=tmp_path / "undisturbed")
    from grok_utils.store.records import write_records
    from grok_utils.training import train

    write_records(train(undisturbed))
    pd.testing.assert_frame_equal(
        read_record(other.record(0))[0], read_record(undisturbed.record(0))[0], check_exact=True
    )
