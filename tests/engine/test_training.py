"""A run from its start or its checkpoint to its end: bit-identity, checkpoints, interrupts, and what they cost."""

import dataclasses
import itertools
import os
import random
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import torch
from support.processes import CONTEXT
from support.studies import interrupted, mutate, run_of, write_study

from grok_utils import training
from grok_utils.engine import machine
from grok_utils.engine.machine import choose_path, work_by_block
from grok_utils.errors import BadInput, Damaged
from grok_utils.optimizers import OPTIMIZERS
from grok_utils.pipeline.parameters import make_run
from grok_utils.store import checkpoints, files
from grok_utils.store.records import read_record, write_records
from grok_utils.studies import ExecutionPath
from grok_utils.training import train

EAGER = ExecutionPath("cpu", "float32", compiled=False, threads=1)


def test_a_rerun_is_bit_identical(tmp_path, trained):
    run, result, _ = trained
    again = dataclasses.replace(run, results=tmp_path)
    np.testing.assert_array_equal(train(again).logs, result.logs)
    assert not np.isnan(result.logs).any()


def test_progress_is_told_at_once_then_twice_a_second_and_at_the_end(tmp_path, monkeypatch):
    seconds, told = itertools.count(100, 0.2), []  # each time that it is asked
    monkeypatch.setattr(training.time, "monotonic", lambda: next(seconds))
    run = run_of(tmp_path)
    train(run, lambda update, logs: told.append((update, len(logs))))
    assert told == [(10, 1), (40, 4), (60, 6)]


def test_bf16_runs_and_is_recorded(tmp_path, trained):
    run = run_of(tmp_path, seeds=[0, 1], precision="bf16")
    result = train(run)
    write_records(result)
    _, metadata = read_record(run.record(0))
    assert metadata["identity"]["precision"] == metadata["made"][0]["precision"] == "bf16"
    # bf16 has eight bits: the first losses agree to about 1 %, and are not those of float32.
    np.testing.assert_allclose(result.logs[0, :, 0], trained[1].logs[0, :, 0], rtol=0.02)
    assert not np.array_equal(result.logs, trained[1].logs)


def test_a_run_that_was_begun_compiled_is_not_gone_on_with_without_a_compiler(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    interrupted(run, monkeypatch)
    state, metadata = checkpoints.load(run.checkpoint)
    checkpoints.save(run.checkpoint, state, metadata | {"path": metadata["path"] | {"compiled": True}})
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    with pytest.raises(BadInput, match=r"^compiler: .* was begun compiled, and none is here: delete it to start anew$"):
        train(run)


def test_a_resumed_run_keeps_the_path_it_began_with(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    interrupted(run, monkeypatch)
    monkeypatch.setattr(machine, "COMPILE_FROM", 0)
    assert choose_path(run).compiled or not shutil.which("g++")
    assert train(run).path == EAGER


# --- resuming ------------------------------------------------------------------------------------------------------

NARROW = {"width": 32, "heads": 2}  # an optimizer keeps the same kinds of state at any width


def test_ctrl_c_saves_a_checkpoint_from_which_the_run_goes_on(tmp_path, trained, monkeypatch):
    run = dataclasses.replace(trained[0], results=tmp_path)
    interrupted(run, monkeypatch)
    assert checkpoints.read_metadata(run.checkpoint)["updates"] == 20
    shown = []
    result = train(run, lambda updates, logs: shown.append((updates, len(logs))))
    assert shown == [(30, 3), (40, 4), (50, 5), (60, 6)]
    np.testing.assert_array_equal(result.logs, trained[1].logs)
    write_records(result)
    assert not run.checkpoint.exists()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_with_a_schedule_of_rates_goes_on_as_if_undisturbed(tmp_path, monkeypatch, optimizer):
    falling = {"batch_size": 16, "learning_rate": {"schedule": "linear", "lo": 4.0e-3, "hi": 1.0e-3}}
    falling |= {"optimizer": optimizer} | NARROW  # the default shape is killed and resumed below
    run = run_of(tmp_path, seeds=[0, 1], arms={"linear": falling}, grid={"weight_decay": [0.5, 2.0], "beta2": [0.9]})
    assert len(run.members) == 8 and len(set(run.courses.learning_rate[:, 0])) == 6
    expected = train(run).logs
    run.checkpoint.unlink(missing_ok=True)  # of a slow machine
    np.testing.assert_array_equal(train(run).logs, expected)
    interrupted(run, monkeypatch)
    np.testing.assert_array_equal(train(run).logs, expected)


END, CTRL_C = signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize("signals", [(END,), (END, CTRL_C), (END, END, CTRL_C), (CTRL_C, CTRL_C)])
def test_the_end_of_a_job_saves_a_checkpoint_whichever_way_it_is_told(tmp_path, trained, monkeypatch, signals):
    run = dataclasses.replace(trained[0], results=tmp_path)
    interrupted(run, monkeypatch, signals=signals)
    assert checkpoints.read_metadata(run.checkpoint)["updates"] == 20


def test_a_checkpoint_is_written_to_its_end_whatever_signals_come_meanwhile(tmp_path, trained, monkeypatch):
    run, fsync = dataclasses.replace(trained[0], results=tmp_path), os.fsync

    def signalled(file):
        for number in (CTRL_C, END, CTRL_C, END):
            signal.raise_signal(number)
        fsync(file)

    monkeypatch.setattr(os, "fsync", signalled)
    interrupted(run, monkeypatch)
    assert checkpoints.load(run.checkpoint)[1]["updates"] == 20


SMALL = {"seeds": [0, 1], "operations": ["x_plus_y"], "updates": 100}


def die(folder, moment, random_seed, changes):
    """Train with a checkpoint after every block and write the records; SIGKILL oneself at `moment` (in a process)."""
    torch.set_num_threads(1)
    training.until_the_next_checkpoint = lambda cost, whole: 0.0
    replace, count = os.replace, 0

    def counted(source, target):
        nonlocal count
        count += 1
        name = "record" if str(target).endswith(".parquet") else f"checkpoint {count}"
        if moment == f"before {name}" or (moment, name) == ("any time", "record"):  # at the latest
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if moment == f"after {name}":
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == "any time" and count == 1:
            delay = random.Random(random_seed).uniform(0, 0.3)
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    os.replace = counted
    write_records(train(run_of(folder, **SMALL, **changes)))


@pytest.mark.parametrize("changes", [{}, *({"optimizer": o} | NARROW for o in OPTIMIZERS if o != "adamw")], ids=str)
def test_killed_at_any_moment_a_run_goes_on_and_its_record_is_that_of_an_undisturbed_one(tmp_path, changes):
    whole = run_of(tmp_path, **SMALL, **changes)
    whole = dataclasses.replace(whole, results=tmp_path / "undisturbed")
    expected = write_records(train(whole))

    run = run_of(tmp_path, **SMALL, **changes)
    moments = ["before checkpoint 2", "after checkpoint 2", "any time", "any time", "before record", "after record"]
    reached = [0]
    for i, moment in enumerate([*moments, "never"]):
        process = CONTEXT.Process(target=die, args=(tmp_path, moment, i, changes))
        process.start()
        process.join(60)
        assert process.exitcode == (0 if moment == "never" else -signal.SIGKILL), moment
        if run.checkpoint.exists():
            reached.append(checkpoints.load(run.checkpoint)[1]["updates"])
    assert reached[:3] == [0, 10, 30]
    assert reached == sorted(reached)
    assert reached[-1] == 100
    assert not run.checkpoint.exists()
    for seed in (0, 1):
        rows, _ = read_record(run.record(seed))
        assert rows.equals(expected[expected["seed"] == seed].astype(rows.dtypes).reset_index(drop=True))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The bytes of a checkpoint at update 20 of the run of `trained`, and the file name."""
    folder = tmp_path_factory.mktemp("checkpoint")
    run = run_of(folder, seeds=[0, 1])
    with pytest.MonkeyPatch.context() as patch:
        interrupted(run, patch)
    return run.checkpoint


def test_a_changed_checkpoint_is_never_read_as_another(tmp_path, checkpoint):
    content = checkpoint.read_bytes()
    tensors, metadata = checkpoints.load(checkpoint)
    path = tmp_path / "changed.safetensors"
    refused = 0
    for seed in range(120):
        path.write_bytes(mutate(content, seed))
        try:
            changed, other = checkpoints.load(path)
        except Damaged as error:
            assert str(path) in str(error)
            assert "it is not used, the run starts again" in str(error)
            assert len(str(error).splitlines()) == 1
            refused += 1
        else:
            assert other == metadata
            assert changed.keys() == tensors.keys()
            assert all(torch.equal(changed[name], tensors[name]) for name in tensors)
    assert refused > 100


def test_metadata_are_read_alone_only_as_they_were_written(tmp_path, checkpoint):
    content = checkpoint.read_bytes()
    path = tmp_path / "changed.safetensors"
    path.write_bytes(content.replace(rb"\"updates\": 20", rb"\"updates\": 60"))
    assert path.read_bytes() != content
    with pytest.raises(Damaged, match="the checksum of its metadata differs"):
        checkpoints.read_metadata(path)


def test_a_file_is_replaced_whole_or_not_at_all_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "folder" / "file.csv"
    with files.written_whole(path) as temporary:
        temporary.write_text("first")
    with pytest.raises(OSError, match=rf"^{path} cannot be written: No space left on device: free some space, "):  # noqa: SIM117
        with files.written_whole(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")
    with pytest.raises(KeyboardInterrupt), files.written_whole(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [p.name for p in path.parent.iterdir()] == ["file.csv"]
    assert path.read_text() == "first"
    with pytest.raises(OSError, match=rf"^{path}/below/x.csv cannot be written: Not a directory: a file is in "):  # noqa: SIM117
        with files.written_whole(path / "below" / "x.csv"):
            pass


def test_a_damaged_or_foreign_checkpoint_is_not_used(tmp_path, checkpoint, trained, capsys):
    run = dataclasses.replace(trained[0], results=tmp_path)
    tensors, metadata = checkpoints.load(checkpoint)
    other = {k: t * 2 for k, t in tensors.items()}
    identity = metadata["identity"]
    foreign = {
        "damaged": lambda: run.checkpoint.write_bytes(checkpoint.read_bytes()[:-1]),
        "study": lambda: checkpoints.save(run.checkpoint, other, metadata | {"study": "paper"}),
        "identity": lambda: checkpoints.save(
            run.checkpoint, other, metadata | {"identity": identity | {"weight_decay": 0.25}}
        ),
        "order": lambda: checkpoints.save(run.checkpoint, other, metadata | {"members": metadata["members"][::-1]}),
        "seeds": lambda: checkpoints.save(run.checkpoint, other, metadata | {"seeds": [0, 2]}),
        "schema": lambda: checkpoints.save(run.checkpoint, other, {"updates": 20, "seconds": 1.0}),
    }
    for name, place in foreign.items():
        run.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        place()
        trainer, fresh = training.resume(run)
        assert trainer.block == 0, name
        assert fresh["seconds"] == 0
        said, err = capsys.readouterr()
        assert err == ""  # a notebook shows it in red
        assert str(run.checkpoint) in said
        assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("cost", "whole", "seconds"),
    [
        (0.01, 36_000, 20.0),  # cheap: every 20 seconds …
        (0.1, 1500, 12.0),  # … or in a short run at 0.8 % of it …
        (1.0, 1500, 100 / 3),  # … but never does writing take more than 3 % of the time
        (10.0, 36_000, 1000 / 3),
    ],
)
def test_a_checkpoint_is_due_every_twenty_seconds_or_sooner_if_that_takes_at_most_three_percent(cost, whole, seconds):
    assert training.until_the_next_checkpoint(cost, whole) == pytest.approx(seconds)


def test_seconds_add_up_over_sessions(tmp_path, monkeypatch, trained):
    run = dataclasses.replace(trained[0], results=tmp_path)
    interrupted(run, monkeypatch)
    first = checkpoints.read_metadata(run.checkpoint)
    start = time.monotonic()
    result = train(run)
    assert first["seconds"] < result.seconds <= first["seconds"] + time.monotonic() - start
    assert result.started == first["started"]


class Killed(Exception):
    pass


@pytest.fixture
def clockwork(tmp_path, monkeypatch):
    """A run of `whole` seconds on a clock of its own, whose checkpoints take `cost`; what has passed, and been written.

    `state` bytes are what the first checkpoint is expected to cost by; it is killed before each of the blocks `kills`.
    """

    def started(whole, cost, kills=(), state=0):
        run = make_run(write_study(tmp_path, updates=7500), "linear", [0], str(tmp_path), "cpu")
        seconds = whole * work_by_block(run) / work_by_block(run).sum()
        seen, kills = {"clock": 0.0, "blocks": 0, "kept": 0, "writing": 0.0, "first": None}, iter([*kills, None])

        class Slow:
            def __init__(self):
                self.block, self.kill, self.blocks, self.path = seen["kept"], next(kills), 750, EAGER

            def run_block(self):
                if self.block == self.kill:
                    raise Killed
                seen["clock"] += seconds[self.block]
                seen["blocks"] += 1
                self.block += 1

            def state(self):
                return {"parameters": torch.zeros(state, dtype=torch.uint8, device="meta")}

            def logged(self):
                return torch.zeros(self.block, 1, 4)

        def save(path, state, metadata):
            seen["first"] = seen["clock"] if seen["first"] is None else seen["first"]
            seen["clock"] += cost
            seen["writing"] += cost
            seen["kept"] = metadata["updates"] // 10

        monkeypatch.setattr(training, "resume", lambda run: (Slow(), {"seconds": 0.0, "started": ""}))
        monkeypatch.setattr(training.time, "monotonic", lambda: seen["clock"])
        monkeypatch.setattr(checkpoints, "save", save)
        return run, seen

    return started


@pytest.mark.parametrize(("whole", "cost"), [(7200, 0.1), (7200, 0.6), (1500, 0.3), (1500, 0.1), (420, 0.1)])
def test_a_run_killed_at_every_tenth_recomputes_less_than_a_tenth(clockwork, whole, cost):
    """The rule alone; tests/faults kills real runs."""
    run, seen = clockwork(whole, cost, kills=range(75, 750, 75))
    for _ in range(9):
        with pytest.raises(Killed):
            train(run)
    train(run)
    assert 750 <= seen["blocks"] < 825
    assert seen["writing"] <= 0.03 * (seen["clock"] - seen["writing"])


@pytest.mark.parametrize(("whole", "cost", "state"), [(60, 0.05, 20e6), (60, 1.0, 2.2e8), (600, 10.0, 2.2e9)])
def test_writing_takes_at_most_three_percent_of_a_run_of_a_minute_and_of_a_large_stacks(clockwork, whole, cost, state):
    run, seen = clockwork(whole, cost, state=int(state))
    train(run)
    assert seen["first"] is None or seen["first"] > cost / 0.03
    assert seen["writing"] <= 0.03 * (seen["clock"] - seen["writing"])
