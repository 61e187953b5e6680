"""Measures while a stack trains: against autograd per example, and that nothing else changes by them."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.courses import courses_of, varied
from support.models import noise_of, sequence
from support.studies import interrupted, run_of

from grok_utils.engine.examples import draw_batches
from grok_utils.engine.trainer import Trainer
from grok_utils.errors import Damaged
from grok_utils.measures import MEASURES, columns_of
from grok_utils.model import initial_decoder
from grok_utils.store import checkpoints
from grok_utils.studies import PROTOCOL, ExecutionPath, Settings
from grok_utils.tasks import make_task
from grok_utils.training import load_checkpoint, train

EAGER = ExecutionPath("cpu", "float32", compiled=False, threads=1)
ALL = tuple(MEASURES)
SIZES = [16, 150, 5]


def tasks_of(*members):
    return [make_task(operation, seed, 11) for operation, seed in members]


def trained(tasks, courses, measures=ALL, settings=PROTOCOL):
    trainer = Trainer(tasks, courses, EAGER, settings, measures=measures)
    for _ in range(trainer.blocks):
        trainer.run_block()
    return trainer


def per_example(task, settings=PROTOCOL):
    """The gradient of each training pair of the plain decoder at its start: float64 [pairs, P]."""
    model = initial_decoder(task, settings.shape)
    rows = []
    for x, y, label in task.train:
        loss = F.cross_entropy(model(sequence(x[None], y[None])), label[None])
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]))
    return torch.stack(rows).double().numpy()


def test_held_still_the_noise_is_that_of_autograd_per_example():
    blocks, size, narrow = 60, 6, Settings(width=32, heads=2)  # what counts is many draws
    tasks = tasks_of(("x_plus_y", 0), ("x_div_y", 1))
    trainer = trained(tasks, courses_of([size] * blocks, 2, rate=0.0), ("gradient_noise",), narrow)
    found = trainer.logged().numpy()[..., 4:]
    for i, task in enumerate(tasks):
        gradients = per_example(task, narrow)
        drawn = F.one_hot(torch.stack([draw_batches(task, block, size) for block in range(blocks)]), len(gradients))
        expected = np.array([noise_of(ten.double().mean(1).numpy() @ gradients, size) for ten in drawn])
        np.testing.assert_allclose(found[:, i], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        # And on average they are the square and the trace themselves, which no estimate has seen.
        true = (gradients.mean(0) ** 2).sum(), gradients.var(0).sum()
        error = found[:, i].std(0, ddof=1) / blocks**0.5
        assert (np.abs(found[:, i].mean(0) - true) < 3 * error).all()
        assert (error < 0.1 * np.array(true)).all()


def test_undrawn_the_square_is_that_of_the_whole_training_set_and_there_is_no_trace():
    tasks = tasks_of(("x_plus_y", 0), ("x_div_y", 0))  # of 60 and 55 pairs
    courses = courses_of([[60, 55]] * 2, 2, rate=0.0, drawn=False)
    square, trace = trained(tasks, courses, ("gradient_noise",)).logged().numpy()[..., 4:].T
    expected = [(per_example(task).mean(0) ** 2).sum() for task in tasks]
    np.testing.assert_allclose(square, np.repeat(np.array(expected)[:, None], 2, 1), rtol=1e-4)
    assert np.isnan(trace).all()


def test_no_measure_changes_a_bit_of_what_else_is_recorded():
    tasks = tasks_of(("permutation", 0), ("x_plus_y", 0), ("x_div_y", 3))
    courses = varied(SIZES, 3)
    plain, measuring = (trained(tasks, courses, measures) for measures in ((), ALL))
    columns = columns_of(ALL)
    assert plain.logged().shape == (3, 3, 4) and measuring.logged().shape == (3, 3, 4 + len(columns))
    assert torch.equal(plain.logged(), measuring.logged()[..., :4])
    assert torch.equal(plain.flat, measuring.flat)
    known = dict(zip(columns, measuring.logged()[..., 4:].isfinite().all(0).T.tolist(), strict=True))
    everywhere = dict.fromkeys(("weight_norm", "gradient_square", "gradient_trace"), [True] * 3)
    assert known == known | everywhere | {"fourier_concentration": [False, True, True]}  # S5 has no frequencies


def test_a_members_measures_do_not_depend_on_the_cells_beside_it():
    two = tasks_of(("x_plus_y", 0), ("x_div_y", 1))
    few = trained(two, courses_of(SIZES, 2, rate=[1e-3, 2e-3]))
    many = trained(two * 3, courses_of(SIZES, 6, rate=[1e-3, 2e-3, 4e-3, 1e-4, 1e-3, 5e-3]))
    assert torch.equal(few.logged(), many.logged()[:, :2])
    assert not torch.equal(many.logged()[..., 4:7][:, 0], many.logged()[..., 4:7][:, 2])


def test_a_diverged_member_leaves_the_others_measures_as_they_were():
    tasks = tasks_of(("x_plus_y", 0), ("x_div_y", 1), ("x_plus_y", 2))
    courses = courses_of(SIZES, 3)
    expected, poisoned = (Trainer(tasks, courses, EAGER, measures=ALL) for _ in range(2))
    with torch.no_grad():
        poisoned.flat[1] = torch.nan
    for trainer in (expected, poisoned):
        trainer.run_block()
    assert poisoned.logged()[0, 1].isnan()[[0, 4, 5, 6, 7]].all()
    assert torch.equal(poisoned.logged()[:, [0, 2]], expected.logged()[:, [0, 2]])


# --- runs ----------------------------------------------------------------------------------------------------------


def test_a_run_with_measures_repeats_and_goes_on_bit_by_bit(tmp_path, trained, monkeypatch):
    run = run_of(tmp_path, seeds=[0, 1], measures=[*ALL])
    expected = train(run).logs
    np.testing.assert_array_equal(expected[..., :4], trained[1].logs)
    run.checkpoint.unlink(missing_ok=True)  # of a slow machine
    np.testing.assert_array_equal(train(run).logs, expected)
    interrupted(run, monkeypatch)
    np.testing.assert_array_equal(train(run).logs, expected)


@pytest.mark.parametrize(("begun", "asked"), [([], ["weight_norm"]), (["weight_norm"], []), (["weight_norm"], [*ALL])])
def test_a_checkpoint_with_other_measures_is_not_used(tmp_path, monkeypatch, capsys, begun, asked):
    interrupted(run_of(tmp_path, measures=begun), monkeypatch)
    run = run_of(tmp_path, measures=asked)
    with pytest.raises(Damaged, match=r"was made with other settings: it is not used, the run starts again$"):
        load_checkpoint(run)
    assert train(run).logs.shape == (6, 2, 4 + len(columns_of(asked)))
    assert "was made with other settings" in capsys.readouterr().out


def test_a_checkpoint_of_before_there_were_measures_is_gone_on_with(tmp_path, trained, monkeypatch):
    run = dataclasses.replace(trained[0], results=tmp_path)
    interrupted(run, monkeypatch)
    state, metadata = checkpoints.load(run.checkpoint)
    del metadata["measures"]
    checkpoints.save(run.checkpoint, state, metadata)
    assert load_checkpoint(run)[1]["updates"] == 20
    np.testing.assert_array_equal(train(run).logs, trained[1].logs)
