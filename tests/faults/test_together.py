"""Two of them on one study at once: no record is made twice, none is damaged, and the second says that it waits."""

import re
import time

from support.commands import processes, started, training_of, wait_until
from support.studies import small, write_study

from grok_utils.pipeline.parameters import make_run
from grok_utils.store.records import read_record

STUDY = {"arms": small("baseline", "linear", hi=8), "operations": ["x_plus_y"], "updates": 600}


def ended(*made):
    """The outputs of make processes that all succeeded."""
    outputs = [process.communicate(timeout=300)[0] for process in made]
    assert [process.returncode for process in made] == [0] * len(made), outputs
    return outputs


def test_two_make_at_once_share_the_work(tmp_path):
    path, results = write_study(tmp_path, **STUDY), tmp_path / "results"
    outputs = ended(*(started("-j2", "all", results=results, STUDY=path) for _ in range(2)))
    text = "".join(outputs)
    names = [f"{arm}-seed{seed}" for arm in ("baseline", "linear") for seed in (0, 1)]
    for name in names:
        assert text.count(f"{name}: done in") == 1
        assert text.count(f"{name}: found complete") <= 1
    assert "another process is working on it; waiting" in text
    assert text.count(str(results / "tiny" / "report.html")) == 2
    assert {p.name for p in (results / "tiny" / "records").iterdir()} == {f"{name}.parquet" for name in names}
    assert [p for p in results.rglob("*") if ".part" in p.name] == []
    assert processes(results) == []


def test_blocks_that_share_a_seed_do_not_both_make_its_record(tmp_path):
    path, results = write_study(tmp_path, **STUDY), tmp_path / "results"
    first = started("run", results=results, STUDY=path, SCHEDULE="linear", SEED="0,1")
    block = make_run(path, "linear", [0, 1], results)
    wait_until(lambda: training_of(block.folder / "runs" / f"{block.name}.part.ipynb"), first)
    start = time.time()
    second = started("run", results=results, STUDY=path, SCHEDULE="linear", SEED=1)
    outputs = ended(first, second)
    assert re.search(r"^linear-seeds0-1: done in .*\n$", outputs[0], re.MULTILINE)
    assert outputs[1] == "linear-seed1: another process is working on it; waiting\nlinear-seed1: found complete\n"
    made = [read_record(block.record(seed))[1]["made"] for seed in (0, 1)]
    assert made[0] == made[1] and made[0][0]["seeds"] == [0, 1]
    assert start < block.record(1).stat().st_mtime  # the second came while the first was training
