"""Runs that end early: when they do, that nothing else changes by it, and what can no longer be told."""

import dataclasses
from functools import partial

import numpy as np
import pandas as pd
import pytest
from support.studies import run_of, small

from grok_utils import training
from grok_utils.analysis.crossings import crossings, while_all_train
from grok_utils.analysis.inference import after_touch, instability, sustained_crossings
from grok_utils.analysis.reported import beside_reported
from grok_utils.analysis.summaries import RMST, final_metrics, summarise
from grok_utils.engine.trainer import early_end
from grok_utils.errors import Damaged
from grok_utils.page import figures, prose, tables
from grok_utils.pipeline import verify
from grok_utils.pipeline.plan import planned_runs, status_lines
from grok_utils.store import checkpoints
from grok_utils.store.records import frame, read_record, read_study, write_record, write_records
from grok_utils.tasks import OPERATIONS, Operation
from grok_utils.training import train

UPDATES, STOP = 300, 100
# One cell learns the first operand in some 100 updates, the other's weights grow beyond all bounds.
FAST = {"operations": ["first"], "width": 32, "heads": 2, "updates": UPDATES, "arms": small("baseline")}
FAST |= {"grid": [{"learning_rate": [4e-3], "weight_decay": [0.5]}, {"learning_rate": [1], "weight_decay": [100]}]}


@pytest.fixture(scope="module", autouse=True)
def first():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPERATIONS, "first", Operation(lambda x, y, p: x))
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run to the study's last update: itself, its result, its rows."""
    run = run_of(tmp_path_factory.mktemp("whole"), "baseline", [0, 1], **FAST)
    result = train(run)
    return run, result, write_records(result)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """The same that ends early."""
    run = run_of(tmp_path_factory.mktemp("ended"), "baseline", [0, 1], **FAST, stop_after=STOP)
    result = train(run)
    return run, result, write_records(result)


def logs_of(*members):
    """Logs [logs, M, 4] of validation accuracies, a string a member: 1 is 99.5 %, 0 is 98.9 %; NaN losses at x."""
    accuracy = np.array([[0.995 if c == "1" else 0.989 for c in m] for m in members], np.float32).T
    losses = np.array([[np.nan if c == "x" else 0.5 for c in m] for m in members], np.float32).T
    return np.stack([losses, accuracy, losses, accuracy], axis=2)


@pytest.mark.parametrize(
    ("members", "end"),
    [
        (["0" * 20], None),
        (["000" + "1" * 10], None),  # 90 updates
        (["000" + "1" * 11 + "0"], 14),  # 100
        (["1" * 20], 11),
        (["1" * 10 + "0" + "1" * 11], 22),  # it was not kept the first time
        (["000" + "1" * 11, "00" + "1" * 12], 14),  # by every member
        (["000" + "1" * 11, "000" + "1" * 10 + "0"], None),
        (["000" + "1" * 11 + "0" * 6, "0" * 9 + "1" * 11], None),  # at once
        (["1" * 12, "00x000000000"], 11),
        (["0x" + "0" * 10, "000x" + "1" * 8], 4),  # what diverged stays so, whatever its accuracy
        (["1" * 5 + "x" + "1" * 5], 6),
        ([""], None),
    ],
)
def test_a_run_ends_once_every_member_has_kept_99_percent_or_has_diverged(members, end):
    assert early_end(logs_of(*members), 100) == end
    assert early_end(logs_of(*members), None) is None


def test_exactly_99_percent_is_not_above():
    logs = np.full((20, 1, 4), np.float32(0.99))
    assert early_end(logs, 100) is None


def test_up_to_the_end_all_is_equal_bit_for_bit(whole, ended):
    (_, result, _), (run, early, rows) = whole, ended
    assert STOP < early.updates < UPDATES == result.updates
    assert early_end(result.logs, STOP) == len(early.logs)
    np.testing.assert_array_equal(early.logs, result.logs[: len(early.logs)])
    assert rows.groupby("cell")["diverged"].any().tolist() == [False, True]
    for seed in run.seeds:
        read, metadata = read_record(run.record(seed))
        assert metadata["made"][0]["ended"] == early.updates
        beyond = read["update"] > early.updates
        measured = ["train_loss", "train_accuracy", "val_loss", "val_accuracy"]
        assert read.loc[beyond, measured].isna().all(axis=None) and read.loc[~beyond, "val_accuracy"].notna().all()
        there, _ = read_record(whole[0].record(seed))
        others = [column for column in read if column not in measured]
        pd.testing.assert_frame_equal(read[others], there[others])  # settings, examples seen and diverged
        pd.testing.assert_frame_equal(read[~beyond], there[~beyond])


@pytest.mark.parametrize("clock", [crossings, sustained_crossings])
def test_times_to_99_percent_are_those_of_the_whole_run(whole, ended, clock):
    there, here = clock(whole[2]), clock(ended[2])
    assert here["reached"].sum() == 2 and here["diverged"].sum() == 2
    pd.testing.assert_frame_equal(here, there)
    pd.testing.assert_frame_equal(summarise(here), summarise(there))
    assert set(here["horizon"]) == {UPDATES}


def test_the_end_is_the_same_whenever_it_is_seen(tmp_path, ended, monkeypatch):
    run, early, _ = ended
    monkeypatch.setattr(training, "PROGRESS_SECONDS", np.inf)  # only after the last block
    again = dataclasses.replace(run, results=tmp_path)
    np.testing.assert_array_equal(train(again).logs, early.logs)
    monkeypatch.setattr(training, "PROGRESS_SECONDS", -1.0)
    again.checkpoint.unlink(missing_ok=True)
    told = []
    train(again, lambda updates, logs: told.append((updates, len(logs))))
    assert told == [(10 * n, n) for n in range(1, len(early.logs) + 1)]


def test_a_run_killed_beyond_its_end_leaves_the_same_record(tmp_path, ended, monkeypatch):
    run, early, _ = ended
    again = dataclasses.replace(run, results=tmp_path)
    trainer, metadata = training.resume(again)
    while trainer.block < len(early.logs) + 3:
        trainer.run_block()
    checkpoints.save(again.checkpoint, trainer.state(), metadata | {"updates": 10 * trainer.block, "seconds": 1.0})
    monkeypatch.setattr(type(trainer), "run_block", lambda self: pytest.fail("it had ended"))
    np.testing.assert_array_equal(train(again).logs, early.logs)


def test_a_record_of_another_end_is_not_the_study_s(whole, ended):
    run = dataclasses.replace(ended[0], results=whole[0].results)
    with pytest.raises(Damaged, match=r"was made with stop_after = None, the study says 100"):
        planned_runs(run.study, run.results)
    assert planned_runs(ended[0].study, ended[0].results) == []
    assert planned_runs(whole[0].study, whole[0].results) == []


def test_status_counts_it_as_complete_and_the_rest_as_at_most(tmp_path, ended):
    run, _, rows = ended
    study = dataclasses.replace(run.study, seeds=(0, 1, 2))
    made = read_record(run.record(0))[1]["made"]
    for seed in (0, 1):
        write_record(dataclasses.replace(run, results=tmp_path), seed, rows[rows["seed"] == seed], made)
    line, summary = status_lines(study, tmp_path)
    assert line == "baseline-seed2: not begun"
    assert summary.startswith("tiny: 2 of 3 records complete; at most 0:")


def test_it_is_made_again_bit_for_bit_and_an_end_that_the_rule_does_not_give_is_told(ended, monkeypatch):
    run, early, _ = ended
    monkeypatch.setattr(verify, "changed_since", lambda commit: [])
    (made,) = read_record(run.record(1))[1]["made"]

    def lines(end):
        here = early.logs[: end // 10]
        write_record(run, 1, frame(run, here, whole=True).query("seed == 1"), [made | {"dirty": False, "ended": end}])
        return list(verify.verify(run.study, run.results, "baseline-seed1"))

    with pytest.raises(Damaged, match=rf"it does not end at update {early.updates - 20}: "):
        lines(early.updates - 20)
    told = lines(early.updates)
    assert f"again: baseline-seed1.parquet, updates 1 to {early.updates} of {early.updates}" in told and "equal" in told


def test_what_needs_the_whole_course_is_refused_or_left_out(whole, ended):
    rows = ended[2]
    with pytest.raises(ValueError, match=r"of 2 members ended early, before they reached 100.0%"):
        crossings(rows, 1.0)  # nothing is above 1
    instability(whole[2])
    for of in (instability, partial(after_touch, later=STOP + 50)):
        with pytest.raises(ValueError, match=r"^runs ended early"):
            of(rows)
    pd.testing.assert_frame_equal(after_touch(rows, STOP), after_touch(whole[2], STOP))
    metrics = final_metrics(rows)
    assert (metrics["metric"] == RMST).eq(metrics["n"] == 2).all()
    assert metrics.loc[metrics["metric"] != RMST, "mean"].isna().all()
    assert len(beside_reported(rows)) == 0  # its operation is not among the reported
    assert tables.schedules(rows)["examples seen"].tolist() == [16 * ended[1].updates]


def test_curves_end_where_the_first_run_of_an_arm_does(whole, ended):
    rows = pd.concat([whole[2].query("seed == 0"), ended[2].query("seed == 1")])
    assert while_all_train(whole[2]) is whole[2]
    drawn = while_all_train(rows)
    assert drawn["update"].max() == ended[1].updates
    assert drawn.groupby(["cell", "seed"]).size().tolist() == [ended[1].updates // 10] * 4
    late = rows.assign(val_accuracy=rows["val_accuracy"].where(rows["val_accuracy"].isna(), 0.5))
    assert "never before a run ended (baseline)" in figures.learning_curves(late).alt


def test_the_report_says_which_runs_ended_early(ended):
    run, early, _ = ended
    study = run.study
    _, metadata = read_study(study, run.results)
    said = prose.heading(study, metadata)
    assert f"up to {UPDATES} updates each" in said
    assert f"Of 2 records, 2 are of runs that ended early, at update {early.updates}: " in said
    settings = tables.settings(study).set_index("setting")["value"]
    assert settings["a run ends early"] == f"once all its models have kept 99 % for {STOP} updates"
