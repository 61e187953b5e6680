"""SIGKILL at random moments, within a write, at every tenth of a run, and compiled: a run is always gone on with."""

import dataclasses
import os
import random
import signal
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from support.processes import CONTEXT
from support.studies import small, write_study

from grok_utils import training
from grok_utils.engine import machine
from grok_utils.engine.trainer import MEASURED, Trainer
from grok_utils.measures import MEASURES
from grok_utils.pipeline.parameters import make_run
from grok_utils.store import checkpoints
from grok_utils.store.records import read_record, write_records
from grok_utils.studies import ExecutionPath
from grok_utils.training import train

GRID = {"learning_rate": [1.0e-3, 4.0e-3]}
STUDY = {"arms": small("linear", hi=8), "grid": GRID, "operations": ["x_plus_y"], "updates": 400}


def run_of(folder, **changes):
    return make_run(write_study(folder, **STUDY | changes), "linear", [0, 1], str(folder / "results"), "cpu")


def exit_code(target, *arguments):
    """How a process ended that did `target`."""
    process = CONTEXT.Process(target=target, args=arguments)
    process.start()
    process.join(400)
    return process.exitcode


def equals(run, expected):
    """Whether the run's records hold bit for bit the rows `expected`, and its checkpoint is gone."""
    for seed in run.seeds:
        rows = read_record(run.record(seed))[0]
        assert rows.equals(expected[expected["seed"] == seed].astype(rows.dtypes).reset_index(drop=True))
    return not run.checkpoint.exists()


def undisturbed(run, folder):
    return write_records(train(dataclasses.replace(run, results=folder / "undisturbed")))


# --- at random, and within a write ---------------------------------------------------------------------------------


def die_within(folder, count):
    """From now on the `count`-th file written to a folder of that name is half of it, and the process is gone."""
    calls = []

    def half(number):  # in place of os.fsync, before which a file's bytes may be anywhere
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        calls.extend([path] if path.parent.name == folder else [])
        if len(calls) == count:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = half


def die(folder, moment):
    """Train with a checkpoint after every block; SIGKILL oneself `moment` seconds after a start, or within a write.

    A negative moment counts from the start of the process, the others from the end of the first block.
    """
    torch.set_num_threads(1)
    training.until_the_next_checkpoint = lambda cost, whole: 0.0
    if moment == "checkpoint":
        die_within("checkpoints", 2)
    elif moment == "record":
        die_within("records", 1)
    elif moment == "second record":
        die_within("records", 2)
    elif moment is not None:
        death = threading.Timer(abs(moment), os.kill, (os.getpid(), signal.SIGKILL))
        if moment < 0:
            death.start()
        else:
            save, checkpoints.save = (
                checkpoints.save,
                lambda *arguments: (death.ident or death.start(), save(*arguments)),
            )
    write_records(train(run_of(folder)))


def test_killed_at_twenty_moments_a_run_goes_on_and_its_record_is_that_of_an_undisturbed_one(tmp_path):
    run = run_of(tmp_path)
    expected = undisturbed(run, tmp_path)
    rng = random.Random(6)
    moments = [rng.uniform(-0.5, 0.5) for _ in range(14)] + ["checkpoint"] * 3
    rng.shuffle(moments)
    moments += ["record", "second record", "record", None]  # with the first there, the third within the other again
    reached, killed = [0], 0
    for moment in moments:
        code = exit_code(die, tmp_path, moment)
        killed += code == -signal.SIGKILL
        assert code == (0 if moment is None else -signal.SIGKILL) or isinstance(moment, float), moment
        if run.checkpoint.exists():
            reached.append(checkpoints.load(run.checkpoint)[1]["updates"])
    assert killed == 20
    assert reached == sorted(reached)
    assert len(set(reached)) > 5
    assert equals(run, expected)
    assert sorted(p.suffix for p in run.folder.rglob("*") if p.is_file()) == [".parquet"] * 2


# --- at every tenth of a slow machine's run ------------------------------------------------------------------------


def die_at_every_tenth(folder, seconds, cost):
    """Train on a clock on which a block takes `seconds` and a checkpoint `cost`; SIGKILL at the next tenth of the run.

    Every block that was computed adds a byte to `folder`/computed.
    """
    torch.set_num_threads(1)
    run = run_of(folder)
    begun = checkpoints.read_metadata(run.checkpoint)["updates"] if run.checkpoint.exists() else 0
    killed = len(list(folder.glob("killed-*")))
    clock, run_block, save = [0.0], Trainer.run_block, checkpoints.save
    training.time.monotonic = lambda: clock[0]

    def slow(trainer):
        if trainer.block * 10 * 10 == (killed + 1) * run.study.updates:
            (folder / f"killed-{killed}-{begun}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        run_block(trainer)
        clock[0] += seconds
        with open(folder / "computed", "a") as file:
            file.write(".")

    def costly(*arguments):
        save(*arguments)
        clock[0] += cost

    Trainer.run_block, checkpoints.save = slow, costly
    write_records(train(run))


# 40 blocks in 25 minutes, and in 7: that a checkpoint costs 0.1 s was measured of four models on one core.
@pytest.mark.parametrize(("seconds", "cost"), [(37.5, 1.0), (10.5, 0.1)])
def test_killed_at_every_tenth_a_run_on_a_slow_machine_recomputes_at_most_a_tenth(tmp_path, seconds, cost):
    run = run_of(tmp_path)
    expected = undisturbed(run, tmp_path)
    for _ in range(9):
        assert exit_code(die_at_every_tenth, tmp_path, seconds, cost) == -signal.SIGKILL
    assert exit_code(die_at_every_tenth, tmp_path, seconds, cost) == 0
    blocks = len(run.batch_sizes)
    assert blocks <= len((tmp_path / "computed").read_text()) <= 1.1 * blocks
    assert equals(run, expected)


# --- compiled ------------------------------------------------------------------------------------------------------

COMPILED = {"arms": small("linear"), "updates": 100, "measures": [*MEASURES]}  # with arm linear, sizes 5 to 16


def train_compiled(folder, results, kill_after=None, **changes):
    """Train on the compiled path; SIGKILL oneself once `kill_after` updates are done and a checkpoint holds them."""
    torch.set_num_threads(1)
    machine.COMPILE_FROM, training.until_the_next_checkpoint = 0, lambda cost, whole: 0.0
    run = dataclasses.replace(run_of(folder, **COMPILED | changes), results=folder / results)
    save = checkpoints.save

    def deadly(path, state, metadata):
        save(path, state, metadata)
        if metadata["updates"] == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.save = deadly
    result = train(run)
    assert result.path == ExecutionPath("cpu", "float32", compiled=True, threads=1)
    write_records(result)


@pytest.mark.skipif(not machine.has_compiler("cpu"), reason="no C++ compiler here")
def test_a_compiled_run_killed_and_resumed_is_bit_identical_and_agrees_with_eager_to_rounding(tmp_path):
    assert exit_code(train_compiled, tmp_path, "whole") == 0
    assert exit_code(partial(train_compiled, measures=[]), tmp_path, "unmeasured") == 0
    run = dataclasses.replace(run_of(tmp_path, **COMPILED), results=tmp_path / "killed")
    for moment in (30, 70):
        assert exit_code(train_compiled, tmp_path, "killed", moment) == -signal.SIGKILL
        assert checkpoints.read_metadata(run.checkpoint)["path"]["compiled"]
    assert exit_code(train_compiled, tmp_path, "killed") == 0
    unmeasured, whole = (dataclasses.replace(run, results=tmp_path / name) for name in ("unmeasured", "whole"))
    for seed in run.seeds:
        rows, metadata = read_record(run.record(seed))
        assert [made["compiled"] for made in metadata["made"]] == [True]
        assert rows.equals(read_record(whole.record(seed))[0])
        assert rows[[*MEASURED]].equals(read_record(unmeasured.record(seed))[0][[*MEASURED]])
        eager = undisturbed(run, tmp_path)
        eager = eager[eager["seed"] == seed].reset_index(drop=True)
        for name in ("train_loss", "val_loss"):
            np.testing.assert_allclose(rows[name][:2], eager[name][:2], rtol=1e-4)
