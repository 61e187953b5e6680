"""Training against PyTorch's own optimizer and a plain decoder; resuming, interrupting, diverging; the path's rules."""

import dataclasses
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.models import sequence
from support.studies import interrupted, mutate, run_of, write_study

from grok_utils import training
from grok_utils.engine.trainer import Trainer, draw_batches, learning_rate
from grok_utils.errors import BadInput, Damaged
from grok_utils.model import initial_decoder
from grok_utils.pipeline.parameters import make_run
from grok_utils.store import checkpoints, files
from grok_utils.store.records import frame, read_record, write_records
from grok_utils.studies import ExecutionPath
from grok_utils.tasks import make_task
from grok_utils.training import choose_path, train, work_by_block

EAGER = ExecutionPath("cpu", "float32", compiled=False, threads=1)
RATE, DECAY = 1e-3, 0.5


def tasks_of(*members, modulus=11):
    return [make_task(operation, seed, modulus) for operation, seed in members]


def trainer_of(tasks, sizes, path=EAGER):
    return Trainer(tasks, np.array(sizes), RATE, DECAY, path)


def logs_after(trainer, blocks):
    for _ in range(blocks):
        trainer.run_block()
    return trainer.logs[:blocks].cpu().numpy().copy()


# --- the mathematics -----------------------------------------------------------------------------------------------


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def measured(model, pairs):
    """Mean cross-entropy and accuracy of a plain model on pairs [n, 3]."""
    logits = model(sequence(pairs[:, 0], pairs[:, 1]))
    loss = F.cross_entropy(logits, pairs[:, 2])
    return loss, (logits.argmax(-1) == pairs[:, 2]).double().mean()


def plain_logs(task, sizes):
    """The logs [blocks, 4] and the final model of one plain decoder under torch.optim.AdamW, as the protocol says."""
    model = initial_decoder(task)
    adam = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), eps=1e-8, weight_decay=DECAY)
    logs = []
    for block, size in enumerate(sizes):
        seen = []
        for i, rows in enumerate(draw_batches(task, block, size)):
            adam.param_groups[0]["lr"] = 1e-3 * min((10 * block + i) / 50, 1)
            loss, accuracy = measured(model, task.train[rows])
            adam.zero_grad()
            loss.backward()
            adam.step()
            seen.append((loss.item(), accuracy.item()))
        with torch.no_grad():
            logs.append([*np.mean(seen, axis=0), *(m.item() for m in measured(model, task.validation))])
    return np.array(logs), model


def test_sixty_updates_are_those_of_torch_adamw_on_plain_decoders(float64):
    # In float64 but for the loss, which the engine takes in float32: 6e-8 of rounding a step, and little chaos yet.
    sizes = [4, 16, 8, 12, 30, 5]
    tasks = tasks_of(("x_plus_y", 0), ("x_minus_y", 0), ("x_plus_y", 1))
    trainer = trainer_of(tasks, sizes)
    logs = logs_after(trainer, len(sizes))
    for i, task in enumerate(tasks):
        expected, model = plain_logs(task, sizes)
        np.testing.assert_allclose(logs[:, i], expected, rtol=1e-5, atol=1e-6)
        flat = torch.cat([p.detach().flatten() for p in model.parameters()])
        torch.testing.assert_close(trainer.flat[i].detach(), flat, rtol=1e-5, atol=1e-6)


def test_learning_rate_warms_up_over_fifty_updates():
    assert [learning_rate(k, 1e-3) for k in (0, 1, 25, 49, 50, 51, 7499)] == pytest.approx(
        [0, 2e-5, 5e-4, 9.8e-4, 1e-3, 1e-3, 1e-3], rel=1e-12
    )


def test_a_member_does_not_depend_on_its_neighbours():
    # The permutation task pads the others to its vocabulary. Two blocks: rounding, before training amplifies it.
    sizes = [16, 150]
    alone = logs_after(trainer_of(tasks_of(("x_plus_y", 0)), sizes), 2)
    members = ("permutation", 0), ("x_plus_y", 0), ("x_minus_y", 3)
    stacked = logs_after(trainer_of(tasks_of(*members), sizes), 2)
    np.testing.assert_allclose(stacked[:, 1], alone[:, 0], rtol=2e-4, atol=1e-6)
    assert np.isfinite(stacked).all()


def test_start_split_and_stream_are_the_same_under_every_arm(tmp_path):
    a, b = (run_of(tmp_path, arm, seeds=[0, 1]) for arm in ("baseline", "linear"))
    first, second = (trainer_of(run.tasks(), run.batch_sizes) for run in (a, b))
    assert torch.equal(first.flat, second.flat)
    for s, t in zip(first.tasks, second.tasks, strict=True):
        assert torch.equal(s.train, t.train)
        assert torch.equal(s.validation, t.validation)
    task = first.tasks[0]
    small, large = draw_batches(task, 3, 7), draw_batches(task, 3, 16)
    assert torch.equal(small, large[..., :7])
    assert not torch.equal(large, draw_batches(task, 4, 16))
    assert not torch.equal(large, draw_batches(first.tasks[1], 3, 16))


def test_a_rerun_is_bit_identical(tmp_path, trained):
    run, result, _ = trained
    again = dataclasses.replace(run, results=tmp_path)
    np.testing.assert_array_equal(train(again).logs, result.logs)
    assert not np.isnan(result.logs).any()


def test_a_member_whose_loss_is_not_finite_is_diverged_and_the_others_go_on(trained):
    run, result, _ = trained
    trainer = trainer_of(run.tasks(), run.batch_sizes)
    logs_after(trainer, 2)
    with torch.no_grad():
        trainer.flat[1] = torch.nan
    logs_after(trainer, 4)
    logs = trainer.logs.numpy()
    np.testing.assert_array_equal(logs[:, [0, 2, 3]], result.logs[:, [0, 2, 3]])
    rows = frame(run, logs)
    poisoned = (rows["operation"] == "x_plus_y") & (rows["seed"] == 1)
    assert rows.loc[poisoned, "diverged"].tolist() == [False] * 2 + [True] * 4
    assert not rows.loc[~poisoned, "diverged"].any()


def test_bf16_runs_and_is_recorded(tmp_path, trained):
    run = run_of(tmp_path, seeds=[0, 1], precision="bf16")
    result = train(run)
    write_records(result)
    _, metadata = read_record(run.record(0))
    assert metadata["precision"] == "bf16"
    # bf16 has eight bits: the first losses agree to about 1 %, and are not those of float32.
    np.testing.assert_allclose(result.logs[0, :, 0], trained[1].logs[0, :, 0], rtol=0.02)
    assert not np.array_equal(result.logs, trained[1].logs)


# --- the path ------------------------------------------------------------------------------------------------------


def test_a_run_is_compiled_where_a_compiler_exists_and_the_work_repays_it(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    monkeypatch.setattr(training.sys, "platform", "linux")
    monkeypatch.setattr(training.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert not choose_path(run).compiled
    monkeypatch.setattr(training, "COMPILE_FROM", training.forward_passes(run))
    assert choose_path(run).compiled
    monkeypatch.setattr(training, "COMPILE_FROM", training.forward_passes(run) + 1)
    assert not choose_path(run).compiled
    monkeypatch.setattr(training, "COMPILE_FROM", 0)
    monkeypatch.setattr(training.shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    assert choose_path(run) == EAGER  # PyTorch compiles by g++ alone, or by what CXX names
    monkeypatch.setenv("CXX", "gcc")
    assert choose_path(run).compiled


def test_a_run_that_was_begun_compiled_is_not_gone_on_with_without_a_compiler(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    interrupted(run, monkeypatch)
    state, metadata = checkpoints.load(run.checkpoint)
    checkpoints.save(run.checkpoint, state, metadata | {"path": metadata["path"] | {"compiled": True}})
    monkeypatch.setattr(training.shutil, "which", lambda name: None)
    with pytest.raises(BadInput, match=r"^compiler: .* was begun compiled, and none is here: delete it to start anew$"):
        train(run)


def test_work_is_counted_in_forward_passes(tmp_path):
    # baseline: 6 blocks of 10 updates at 16 count three each; 6 validations of ceil(121 / 2) pairs; 2 operations
    assert training.forward_passes(run_of(tmp_path, "baseline")) == 2 * (3 * 6 * 10 * 16 + 6 * 61)


def test_a_resumed_run_keeps_the_path_it_began_with(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    interrupted(run, monkeypatch)
    monkeypatch.setattr(training, "COMPILE_FROM", 0)
    assert choose_path(run).compiled or not shutil.which("g++")
    assert train(run).path == EAGER


# --- resuming ------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("signals", [(signal.SIGTERM,), (signal.SIGTERM, signal.SIGINT)])
def test_the_end_of_a_job_saves_a_checkpoint_whichever_way_it_is_told(tmp_path, trained, monkeypatch, signals):
    run = dataclasses.replace(trained[0], results=tmp_path)
    interrupted(run, monkeypatch, signals=signals)
    assert checkpoints.read_metadata(run.checkpoint)["updates"] == 20


def test_a_second_ctrl_c_does_not_wait_for_the_block(tmp_path, trained, monkeypatch):
    run = dataclasses.replace(trained[0], results=tmp_path)
    interrupted(run, monkeypatch, signals=(signal.SIGINT, signal.SIGINT))
    assert not run.checkpoint.exists()


SMALL = {"seeds": [0, 1], "operations": ["x_plus_y"], "updates": 100}


def die(folder, moment, random_seed):
    """Train with a checkpoint after every block and write the records; SIGKILL oneself at `moment` (in a process)."""
    torch.set_num_threads(1)
    training.CHECKPOINT_SECONDS = -1.0
    replace, count = os.replace, 0

    def counted(source, target):
        nonlocal count
        count += 1
        name = "record" if str(target).endswith(".parquet") else f"checkpoint {count}"
        if moment == f"before {name}":
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if moment == f"after {name}":
            os.kill(os.getpid(), signal.SIGKILL)
        if moment == "any time" and count == 1:
            delay = random.Random(random_seed).uniform(0, 0.3)
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()

    os.replace = counted
    write_records(train(run_of(folder, **SMALL)))


def test_killed_at_any_moment_a_run_goes_on_and_its_record_is_that_of_an_undisturbed_one(tmp_path):
    whole = run_of(tmp_path, **SMALL)
    whole = dataclasses.replace(whole, results=tmp_path / "undisturbed")
    expected = write_records(train(whole))

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["grok_utils.training", "grok_utils.records"])
    run = run_of(tmp_path, **SMALL)
    moments = ["before checkpoint 2", "after checkpoint 2", "any time", "any time", "before record", "after record"]
    reached = [0]
    for i, moment in enumerate([*moments, "never"]):
        process = context.Process(target=die, args=(tmp_path, moment, i))
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
    settings = metadata["settings"]
    foreign = {
        "damaged": lambda: run.checkpoint.write_bytes(checkpoint.read_bytes()[:-1]),
        "study": lambda: checkpoints.save(run.checkpoint, other, metadata | {"study": "paper"}),
        "settings": lambda: checkpoints.save(
            run.checkpoint, other, metadata | {"settings": settings | {"weight_decay": 0.25}}
        ),
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
        (0.01, 36_000, 0.5),  # cheap: a fiftieth of the time
        (1.0, 36_000, 20.0),  # never rarer
        (1.0, 1500, 12.0),  # a short run: 0.8 % of it …
        (1.0, 420, 10.0),  # … but no more than a tenth of the time goes into writing
    ],
)
def test_a_checkpoint_is_due_every_twenty_seconds_or_sooner(cost, whole, seconds):
    assert training.until_the_next_checkpoint(cost, whole) == pytest.approx(seconds)


def test_seconds_add_up_over_sessions(tmp_path, monkeypatch, trained):
    run = dataclasses.replace(trained[0], results=tmp_path)
    interrupted(run, monkeypatch)
    first = checkpoints.read_metadata(run.checkpoint)
    start = time.monotonic()
    result = train(run)
    assert first["seconds"] < result.seconds <= first["seconds"] + time.monotonic() - start
    assert result.started == first["started"]


@pytest.mark.parametrize(("whole", "cost"), [(7200, 0.1), (1500, 1.0), (1500, 0.1), (420, 0.4), (420, 0.1), (60, 0.05)])
def test_a_run_killed_at_every_tenth_recomputes_less_than_a_tenth(tmp_path, monkeypatch, whole, cost):
    """The rule alone, on a clock of its own; tests/faults kills real runs."""
    run = make_run(write_study(tmp_path, updates=7500), "linear", [0], str(tmp_path), "cpu")
    seconds = whole * work_by_block(run) / work_by_block(run).sum()
    clock, computed, kept, kills = [0.0], [0], [0], iter([*range(75, 750, 75), None])

    class Killed(Exception):
        pass

    class Slow:
        def __init__(self):
            self.block, self.kill, self.batch_sizes, self.path = kept[0], next(kills), run.batch_sizes, EAGER

        def run_block(self):
            if self.block == self.kill:
                raise Killed
            clock[0] += seconds[self.block]
            computed[0] += 1
            self.block += 1

        def state(self):
            return {}

        def logged(self):
            return torch.zeros(self.block, 1, 4)

    def save(path, state, metadata):
        clock[0] += cost
        kept[0] = metadata["updates"] // 10

    monkeypatch.setattr(training, "resume", lambda run: (Slow(), {"seconds": 0.0, "started": ""}))
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoints, "save", save)
    for _ in range(9):
        with pytest.raises(Killed):
            train(run)
    train(run)
    assert 750 <= computed[0] < 825
    assert clock[0] < 1.12 * (whole * computed[0] / 750)  # writing takes its part, too
