"""A stack of members on a CPU against PyTorch's own optimizers on plain decoders; neighbours, going on, diverging."""

import numpy as np
import pytest
import torch
from support.courses import courses_of, varied
from support.models import measured
from support.oracle import step
from support.studies import run_of

from grok_utils.engine.examples import draw_batches
from grok_utils.engine.stack import Layout
from grok_utils.engine.trainer import Trainer
from grok_utils.model import initial_decoder
from grok_utils.optimizers import OPTIMIZERS
from grok_utils.store.records import frame
from grok_utils.studies import PROTOCOL, ExecutionPath, Settings
from grok_utils.tasks import make_task

EAGER = ExecutionPath("cpu", "float32", compiled=False, threads=1)


def tasks_of(*members, modulus=11):
    return [make_task(operation, seed, modulus) for operation, seed in members]


def trainer_of(tasks, sizes, settings=PROTOCOL):
    return Trainer(tasks, courses_of(sizes, len(tasks)), EAGER, settings)


def logs_after(trainer, blocks):
    for _ in range(blocks):
        trainer.run_block()
    return trainer.logged().numpy().copy()


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def plain_logs(task, courses, member, batches, settings=PROTOCOL):
    """The logs [blocks, 4] and the final model of one plain decoder under PyTorch's optimizer, as the protocol says.

    `batches(block)` are the rows of `task.train` of its ten updates.
    """
    model = initial_decoder(task, settings.shape)
    theirs = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings.optimizer](model.parameters())
    logs = []
    for block in range(len(courses.batch_size)):
        seen = []
        own = (courses.learning_rate, courses.weight_decay, courses.beta1, courses.beta2)
        rate, *others = (course[block, member] for course in own)
        for i, rows in enumerate(batches(block)):
            warm = min((10 * block + i) / settings.warm_up, 1)
            loss, accuracy = measured(model, task.train[rows])
            theirs.zero_grad()
            loss.backward()
            step([theirs], rate * warm, *others)
            seen.append((loss.item(), accuracy.item()))
        with torch.no_grad():
            logs.append([*np.mean(seen, axis=0), *(m.item() for m in measured(model, task.validation))])
    return np.array(logs), model


def parameters_of(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("courses", "settings"),
    [
        (varied, {}),
        (courses_of, {"width": 32, "heads": 2}),
        (varied, {"width": 32, "heads": 2, "optimizer": "sgd"}),
        (varied, {"width": 24, "heads": 3, "blocks": 3, "warm_up": 7}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_sixty_updates_are_those_of_pytorchs_optimizer_on_plain_decoders(float64, courses, settings):
    # In float64 but for the loss, which the engine takes in float32: 6e-8 of rounding a step, and little chaos yet.
    sizes = [4, 16, 8, 12, 30, 5]
    tasks = tasks_of(("x_plus_y", 0), ("x_minus_y", 0), ("x_plus_y", 1), ("x_plus_y", 0))
    courses = courses(sizes, len(tasks))
    settings = Settings(**settings)
    trainer = Trainer(tasks, courses, EAGER, settings)
    logs = logs_after(trainer, len(sizes))
    for i, task in enumerate(tasks):
        batches = lambda block, task=task: draw_batches(task, block, sizes[block])  # noqa: E731
        expected, model = plain_logs(task, courses, i, batches, settings)
        np.testing.assert_allclose(logs[:, i], expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(trainer.flat[i], parameters_of(model), rtol=1e-5, atol=1e-6)


def test_undrawn_every_update_is_of_all_training_pairs(float64):
    tasks = tasks_of(("x_plus_y", 0), ("x_div_y", 0))  # of 60 and 55 pairs
    courses = varied([[60, 55]] * 3, 2, drawn=False)
    trainer = Trainer(tasks, courses, EAGER)
    logs = logs_after(trainer, 3)
    for i, task in enumerate(tasks):
        expected, model = plain_logs(task, courses, i, lambda block, task=task: [slice(None)] * 10)
        np.testing.assert_allclose(logs[:, i], expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(trainer.flat[i], parameters_of(model), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings", [*({"optimizer": name} for name in OPTIMIZERS), {"width": 24, "blocks": 3}], ids=str
)
def test_a_member_does_not_depend_on_its_neighbours(settings):
    # The permutation task pads the others to its vocabulary. Two blocks: rounding, before training amplifies it.
    sizes = [16, 150]
    settings = Settings(**settings)
    alone = logs_after(trainer_of(tasks_of(("x_plus_y", 0)), sizes, settings), 2)
    members = ("permutation", 0), ("x_plus_y", 0), ("x_minus_y", 3)
    stacked = logs_after(trainer_of(tasks_of(*members), sizes, settings), 2)
    np.testing.assert_allclose(stacked[:, 1], alone[:, 0], rtol=2e-4, atol=1e-6)
    assert np.isfinite(stacked).all()


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, "rule"])
def test_a_members_bits_do_not_depend_on_the_cells_beside_it(monkeypatch, optimizer):
    monkeypatch.setitem(OPTIMIZERS, "rule", OPTIMIZERS["adamw"]._replace(cpu=None))
    settings = Settings(optimizer=optimizer)
    sizes, two = [16, 150, 5], tasks_of(("x_plus_y", 0), ("x_div_y", 1))
    few = Trainer(two, courses_of(sizes, 2, rate=[1e-3, 2e-3]), EAGER, settings)
    rates, decays = [1e-3, 2e-3, 4e-3, 1e-4, 1e-3, 5e-3], [0.5, 0.5, 0.1, 1.0, 0.5, 0.0]
    many = Trainer(two * 3, courses_of(sizes, 6, rate=rates, decay=decays), EAGER, settings)
    logs_few, logs_many = logs_after(few, 3), logs_after(many, 3)
    np.testing.assert_array_equal(logs_few, logs_many[:, :2])
    assert torch.equal(few.flat, many.flat[:2])
    assert torch.equal(many.flat[0], many.flat[4])  # the same cell twice
    assert not torch.equal(many.flat[0], many.flat[2])


def test_members_of_an_operation_and_seed_draw_their_batch_once(monkeypatch):
    drawn = []
    draw = lambda task, *others: drawn.append((task.operation, task.seed)) or draw_batches(task, *others)  # noqa: E731
    monkeypatch.setattr("grok_utils.engine.trainer.draw_batches", draw)
    logs_after(Trainer(tasks_of(("x_plus_y", 0), ("x_plus_y", 1)) * 3, courses_of([4], 6), EAGER), 1)
    assert drawn == [("x_plus_y", 0), ("x_plus_y", 1)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_going_on_from_a_state_is_bit_identical(optimizer):
    tasks, courses = tasks_of(("x_plus_y", 0), ("x_minus_y", 3)), varied([4, 16, 7, 9], 2)
    settings = Settings(optimizer=optimizer, width=32, heads=2)
    whole, first, second = (Trainer(tasks, courses, EAGER, settings) for _ in range(3))
    expected = logs_after(whole, 4)
    logs_after(first, 2)
    second.restore({name: t.clone() for name, t in first.state().items()})
    logs_after(second, 2)
    np.testing.assert_array_equal(second.logged().numpy(), expected)
    assert torch.equal(second.flat, whole.flat)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_rows_padded_as_for_a_gpu_train_the_same_and_leave_checkpoints_as_they_are(optimizer, monkeypatch):
    tasks, courses = tasks_of(("x_plus_y", 0), ("x_minus_y", 3)), varied([4, 16, 7], 2)
    arguments = tasks, courses, EAGER, Settings(optimizer=optimizer, width=32, heads=2)
    plain = Trainer(*arguments)
    monkeypatch.setattr("grok_utils.engine.trainer.Layout", lambda tasks, shape, multiple: Layout(tasks, shape, 16))
    padded, resumed = Trainer(*arguments), Trainer(*arguments)
    count = plain.flat.shape[1]
    assert padded.flat.shape[1] == -(-count // 16) * 16 > count
    np.testing.assert_allclose(logs_after(padded, 2), logs_after(plain, 2), rtol=1e-5)
    resumed.restore({name: t.clone() for name, t in plain.state().items()})
    for name, value in padded.state().items():
        torch.testing.assert_close(value, resumed.state()[name], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(logs_after(resumed, 1), logs_after(plain, 1), rtol=1e-5)
    assert (resumed.flat[:, count:] == 0).all() and (padded.flat[:, count:] == 0).all()


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
