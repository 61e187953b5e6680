"""oneDNN's products against float64, and members computed one by one against members side by side."""

import numpy as np
import pytest
import torch
from support.courses import courses_of, varied
from support.models import relative
from torch.nn.functional import linear as plain

from grok_utils.engine import machine, products
from grok_utils.engine.stack import PLAIN, Layout, stacked_logits
from grok_utils.engine.trainer import Trainer
from grok_utils.optimizers import OPTIMIZERS
from grok_utils.studies import ExecutionPath, Settings
from grok_utils.tasks import make_task

EAGER = ExecutionPath("cpu", "float32", compiled=False, threads=1)
pytestmark = pytest.mark.skipif(not products.AVAILABLE, reason="this PyTorch has no oneDNN")


@pytest.mark.parametrize(("rows", "given", "made"), [(1, 3, 5), (258, 128, 512), (37, 512, 128), (258, 128, 97)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lying", ["whole", "slices"])  # as weights lie in a flat tensor, and rows in a larger one
def test_products_and_gradients_are_those_in_float64(rows, given, made, bias, lying):
    generator = torch.Generator().manual_seed(rows)

    def drawn(*shape):
        if lying == "whole":
            return torch.randn(shape, generator=generator).requires_grad_()
        larger = torch.randn(3, *(2 * n for n in shape), generator=generator)
        return larger[1, *(slice(n) for n in shape)].requires_grad_()

    inputs = [drawn(rows, given), drawn(made, given)] + ([drawn(made)] if bias else [])
    seed = torch.randn(rows, made, generator=generator)
    out = products.linear(*(t[None] for t in inputs), *([] if bias else [None]))[0]
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    expected = plain(*doubles)
    own = out, *torch.autograd.grad(out, inputs, seed)
    for a, b in zip(own, (expected, *torch.autograd.grad(expected, doubles, seed.double())), strict=True):
        assert a.dtype == torch.float32 and a.shape == b.shape
        assert relative(a, b).item() < 1e-6


def test_the_operator_is_what_pytorch_asks_of_one():
    inputs = [torch.randn(6, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True), torch.randn(5)]
    for bias in (inputs[2].requires_grad_(), None):
        torch.library.opcheck(torch.ops.grok_utils.product.default, (*inputs[:2], bias))


def test_attention_that_needs_rows_for_each_element_is_left_out_without():
    layout, x = Layout([make_task("x_plus_y", 0, 11)]), torch.zeros(1, 2, dtype=torch.int64)
    flat, never = torch.zeros(1, sum(layout.sizes)), PLAIN._replace(first=None, last=None)
    assert stacked_logits(layout, flat, x, x, False, never).equal(stacked_logits(layout, flat, x, x, False))
    with pytest.raises(TypeError, match="not callable"):
        stacked_logits(layout, flat, x, x, True, never)


def trained(members, courses, settings, blocks):
    trainer = Trainer([make_task(o, seed, 11) for o, seed in members], courses, EAGER, settings, ("gradient_noise",))
    for _ in range(blocks):
        trainer.run_block()
    return trainer


MEMBERS = [("permutation", 0), ("x_plus_y", 0), ("x_minus_y", 3)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_one_by_one_members_train_as_side_by_side_to_rounding(monkeypatch, optimizer):
    settings, courses = Settings(width=32, heads=2, blocks=3, optimizer=optimizer), varied([16, 150, 5], 3)
    beside = trained(MEMBERS, courses, settings, 3)
    monkeypatch.setattr(machine, "APART_FROM", 0)
    apart = trained(MEMBERS, courses, settings, 3)
    assert (len(beside.apart), len(apart.apart)) == (1, 3)
    np.testing.assert_allclose(apart.logs, beside.logs, rtol=2e-3, atol=1e-5)
    torch.testing.assert_close(apart.flat, beside.flat, rtol=1e-3, atol=1e-3)


def test_one_by_one_a_members_bits_do_not_depend_on_its_neighbours(monkeypatch):
    monkeypatch.setattr(machine, "APART_FROM", 0)
    settings = Settings(width=32, heads=2)
    alone = trained(MEMBERS[:1], courses_of([16, 7], 1, rate=[1e-3]), settings, 2)
    stack = trained(MEMBERS[2:] + MEMBERS[:1], courses_of([16, 7], 2, rate=[2e-3, 1e-3]), settings, 2)
    assert torch.equal(alone.flat[0], stack.flat[1]) and torch.equal(alone.logs[:, 0], stack.logs[:, 1])


@pytest.mark.parametrize(
    ("device", "precision", "compiled", "width", "batch_size", "apart"),
    [
        ("cpu", "float32", False, 128, machine.APART_FROM - 1, False),
        ("cpu", "float32", False, 128, machine.APART_FROM, True),
        ("cpu", "float32", False, 64, 3 * machine.APART_FROM, False),
        ("cpu", "float32", True, 64, 1, True),
        ("cpu", "bf16", True, 128, 10**9, False),
        ("cuda", "float32", True, 128, 10**9, False),
    ],
)
def test_members_are_computed_one_by_one_on_a_cpu_unless_they_are_small(
    device, precision, compiled, width, batch_size, apart
):
    shape = Settings(width=width).shape
    assert machine.one_by_one(ExecutionPath(device, precision, compiled, 1), shape, batch_size) == apart
