"""A full disk and a folder that cannot be written to, on real file systems: one clear line, earlier files untouched."""

import dataclasses
import shutil
import subprocess

import pytest
from support.files import mount, read_only
from support.studies import outcome, small, write_study

from grok_utils import training
from grok_utils.page.export import export_html
from grok_utils.store import checkpoints
from grok_utils.store.records import read_record, write_records
from grok_utils.training import train


@pytest.fixture
def disk(tmp_path):
    """A function that mounts an empty disk of some size, over a folder where one is given, and says where it is."""
    mounted = []

    def sized(size, folder=tmp_path / "disk"):
        folder.mkdir(exist_ok=True)
        mount("-t", "tmpfs", "-o", f"size={size}", "none", folder)
        mounted.append(folder)
        return folder

    yield sized
    for folder in mounted:
        subprocess.run(["umount", str(folder)], capture_output=True)


def fill(folder, left):
    """Fill a disk up but for `left` bytes."""
    free = shutil.disk_usage(folder).free
    (folder / "filling").write_bytes(bytes(max(0, free - left)))


def contents(folder):
    """The files and their bytes, but for the large ones, and for the notebook that a failed report leaves."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".part.ipynb")]
    return {p.relative_to(folder): p.read_bytes() for p in files if p.stat().st_size < 10**6}


def kept(before, folder):
    """Whether everything that was there is there as it was; nothing half-written is beside it."""
    after = contents(folder)
    assert [p for p in after if p.suffix == ".part"] == []
    return all(after[path] == content for path, content in before.items())


def test_a_full_disk_at_a_checkpoint_keeps_the_last_one_and_the_run_goes_on_from_it(
    tmp_path, disk, trained, monkeypatch
):
    run = dataclasses.replace(trained[0], results=disk("30m"))  # a checkpoint of four models takes 20 MB
    monkeypatch.setattr(training, "until_the_next_checkpoint", lambda cost, whole: 0.0)
    with pytest.raises(OSError, match=rf"^{run.checkpoint} cannot be written: .*No space left on device") as caught:
        train(run)
    assert len(str(caught.value).splitlines()) == 1
    assert checkpoints.load(run.checkpoint)[1]["updates"] == 10
    assert sorted(p.name for p in run.folder.rglob("*") if p.is_file()) == [run.checkpoint.name]
    mount("-o", "remount,size=60m", run.results)
    result = train(run)
    assert (result.logs == trained[1].logs).all()


def test_a_full_disk_at_a_record(disk, trained):
    run, result, _ = trained
    folder = disk("200k")
    full = dataclasses.replace(result, run=dataclasses.replace(run, results=folder))
    shutil.copytree(run.folder / "records", folder / "tiny" / "records")
    full.run.record(1).unlink()
    before = contents(folder)
    fill(folder, 0)
    with pytest.raises(OSError, match=rf"^{full.run.record(1)} cannot be written: .*No space left on device"):
        write_records(full)
    assert kept(before, folder)
    (folder / "filling").unlink()
    write_records(full)
    assert read_record(full.run.record(1))[0].equals(read_record(run.record(1))[0])


@pytest.fixture(scope="module")
def reported(tmp_path_factory, trained):
    """A complete study with its report; its file and its results."""
    folder = tmp_path_factory.mktemp("reported")
    path, results = write_study(folder, arms=small("linear")), folder / "results"
    shutil.copytree(trained[0].folder / "records", results / "tiny" / "records")
    from grok_utils.__main__ import main

    assert main(["report", path, "--results", str(results)]) == 0
    return path, results


@pytest.mark.parametrize(
    "left", [0, 60_000, 200_000]
)  # for nothing, for some of the notebook, for some of what it makes
def test_a_full_disk_at_the_report(disk, reported, capsys, left):
    path, results = reported
    folder = disk("6m")
    shutil.copytree(results, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.part.ipynb"))
    for name in ("report.html", "report.ipynb"):
        (folder / "tiny" / name).write_text("the last one")
    before = contents(folder / "tiny")
    fill(folder, left)
    code, out, err = outcome(capsys, "report", path, "--results", folder)
    assert (code, out, len(err)) == (1, [], 1)
    assert "No space left on device" in err[0] and ": free some space, then run it again" in err[0]
    assert kept(before, folder / "tiny")  # figures and tables too: those that are made anew are the same


def test_a_full_disk_at_a_figure(tmp_path, disk, reported, capsys):
    path, results = reported[0], shutil.copytree(reported[1], tmp_path / "results")
    figures = disk("1m", results / "tiny" / "figures")
    for last in (results / "tiny" / "report.html", figures / "schedules.svg"):
        last.write_text("the last one")
    fill(figures, 0)
    before = contents(results)
    code, out, err = outcome(capsys, "report", path, "--results", results)
    assert (code, out, len(err)) == (1, [], 1)
    assert "No space left on device" in err[0] and ": free some space, then run it again" in err[0]
    assert str(figures) in err[0]
    assert kept(before, results)


@pytest.mark.parametrize("left", [0, 60_000])  # for nothing, for half of the page
def test_a_full_disk_at_the_page(disk, reported, left):
    folder = disk("1m")
    page = folder / "report.html"
    page.write_text("the last one")
    fill(folder, left)
    before = contents(folder)
    with pytest.raises(OSError, match=rf"^{page} cannot be written: .*No space left on device"):
        export_html(reported[1] / "tiny" / "report.ipynb", page)
    assert kept(before, folder)


def test_a_full_disk_at_a_run(tmp_path, disk, capsys):
    path, folder = write_study(tmp_path), disk("1m")
    fill(folder, 100_000)
    code, out, err = outcome(capsys, "run", path, "--results", folder, "--schedule", "linear", "--seeds", "0")
    assert (code, out, len(err)) == (1, [], 1)
    assert "No space left on device" in err[0] and ": free some space, then run it again" in err[0]
    for record in folder.rglob("*.parquet"):  # the notebook takes more room than the record
        read_record(record)
    assert [p for p in folder.rglob("*.part")] == []


@pytest.mark.parametrize("what", ["run", "report"])
def test_results_that_nobody_can_write_to(reported, capsys, what):
    path, results = reported
    (results / "tiny" / "records" / "linear-seed1.parquet").rename(results / "kept")
    arguments = ["--schedule", "linear", "--seeds", "1"] if what == "run" else []
    before = contents(results)
    try:
        with read_only(results):
            code, out, err = outcome(capsys, what, path, "--results", results, *arguments)
    finally:
        (results / "kept").rename(results / "tiny" / "records" / "linear-seed1.parquet")
    assert (code, out, len(err)) == (1, [], 1)
    assert "Read-only file system" in err[0] and ": choose a folder of results that can be written to" in err[0]
    assert str(results) in err[0]
    del before[next(p for p in before if p.name == "kept")]
    assert kept(before, results)


def test_a_checkpoints_folder_that_nobody_can_write_to_keeps_the_last_one(tmp_path, trained, monkeypatch):
    run = dataclasses.replace(trained[0], results=tmp_path / "results")
    monkeypatch.setattr(training, "until_the_next_checkpoint", lambda cost, whole: 0.0)
    save = checkpoints.save

    def stop_after_one(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(checkpoints, "save", stop_after_one)
        train(run)
    before = contents(run.folder) | {run.checkpoint.relative_to(run.folder): run.checkpoint.read_bytes()}
    with read_only(run.checkpoint.parent):
        with pytest.raises(OSError, match=rf"^{run.checkpoint} cannot be written: .*Read-only file system"):
            train(run)
        assert contents(run.folder) | {run.checkpoint.relative_to(run.folder): run.checkpoint.read_bytes()} == before
    assert (train(run).logs == trained[1].logs).all()


def test_a_records_folder_that_nobody_can_write_to(tmp_path, trained):
    run = dataclasses.replace(trained[0], results=tmp_path)
    shutil.copytree(trained[0].folder / "records", run.folder / "records")
    run.record(1).unlink()
    run.checkpoint.parent.mkdir()
    run.checkpoint.write_text("what the next try goes on from")
    before = contents(tmp_path)
    refused = rf"^{run.record(1)} cannot be written: .*Read-only file system"
    with read_only(run.folder / "records"), pytest.raises(OSError, match=refused):
        write_records(dataclasses.replace(trained[1], run=run))
    assert kept(before, tmp_path)


@pytest.mark.parametrize("folder", ["figures", "tables"])
def test_a_folder_of_figures_or_tables_that_nobody_can_write_to(reported, capsys, folder):
    path, results = reported
    before = contents(results)
    with read_only(results / "tiny" / folder):
        code, out, err = outcome(capsys, "report", path, "--results", results)
    assert (code, out, len(err)) == (1, [], 1)
    assert "Read-only file system" in err[0] and ": choose a folder of results that can be written to" in err[0]
    assert str(results / "tiny" / folder) in err[0]
    assert kept(before, results)
