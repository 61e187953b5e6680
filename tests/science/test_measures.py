"""The measures alone: closed forms, plain decoders, numpy."""

import numpy as np
import pytest
import torch
from support.models import noise_of

from grok_utils.engine.stack import Layout
from grok_utils.measures import MEASURES, RATIOS, Stack, columns_of, fourier_concentration, gradient_noise, weight_norm
from grok_utils.model import initial_decoder
from grok_utils.tasks import SPECIAL_TOKENS, make_task


def stack_of(*members, modulus=11):
    """A stack of plain decoders at their start, and these."""
    tasks = [make_task(operation, seed, modulus) for operation, seed in members]
    decoders, layout = [initial_decoder(task) for task in tasks], Layout(tasks)
    flat = layout.pack(decoders)
    return Stack(tasks, flat, layout.views(flat), gradients=False), decoders


def test_every_measure_says_what_it_is_and_ratios_are_of_columns():
    columns = columns_of(MEASURES)
    assert len(set(columns)) == len(columns)
    assert all(measure.of.__doc__.splitlines()[0] for measure in MEASURES.values())
    assert {column for ratio in RATIOS.values() for column in ratio} <= set(columns)


def test_the_weight_norm_is_that_of_the_plain_decoder_in_float64():
    stack, decoders = stack_of(("permutation", 0), ("x_plus_y", 1))  # the second is padded
    expected = [np.sqrt(sum(p.double().square().sum().item() for p in d.parameters())) for d in decoders]
    np.testing.assert_allclose(weight_norm(stack), expected, rtol=1e-6)


# --- gradient noise ------------------------------------------------------------------------------------------------

BATCH, REPEATS = 4, 20_000
POINTS = torch.tensor([[0.0, 1.0, 3.0], [2.0, -1.0, 0.0], [1.0, 1.0, -4.0], [0.0, 0.0, 2.0], [5.0, -3.0, 1.0]]).double()


def quadratic(parameters, drawn, moves=0.0, batch_size=BATCH):
    """The estimates [2, M] of a block on the loss ½|θ - x|² of an example x, whose gradient is θ - x.

    `drawn` [10, M, B] are places in POINTS; θ [M, 3] goes down the true gradient by `moves` of it at each update.
    """
    stack = Stack([], parameters, {}, gradients=True)
    stack.start_block(batch_size)
    for batch in drawn:
        stack.each_update((parameters.unsqueeze(1) - POINTS[batch]).mean(1))
        parameters = parameters - moves * (parameters - POINTS.mean(0))
    return gradient_noise(stack)


def standard_errors_apart(found, expected):
    return (found.mean(1) - torch.tensor(expected)).abs() / (found.std(1) / found.shape[1] ** 0.5)


@pytest.mark.parametrize("moves", [0.0, 0.1])
def test_the_estimates_are_unbiased_where_the_noise_scale_is_known_and_off_as_said_where_the_point_moves(moves):
    start = torch.tensor([1.0, -2.0, 0.5]).double()
    drawn = torch.randint(len(POINTS), (10, REPEATS, BATCH), generator=torch.Generator().manual_seed(0))
    found = quadratic(start.expand(REPEATS, 3), drawn, moves)
    trace = POINTS.var(0, correction=0).sum().item()  # of the set itself: each point weighs 1/n
    true = torch.stack([(1 - moves) ** k * (start - POINTS.mean(0)) for k in range(10)])  # the ten true gradients
    apart = (true - true.mean(0)).square().sum(1).mean().item()
    assert (apart > 0) == (moves > 0)
    expected = [true.mean(0).square().sum().item() - apart / 9, trace + apart * 10 * BATCH / 9]
    assert (standard_errors_apart(found, expected) < 4).all()
    assert found.std(1).min() / REPEATS**0.5 < 0.05 * min(expected)  # the test can tell
    if moves:  # still, it would be these
        assert (standard_errors_apart(found, [true[0].square().sum().item(), trace]) > 10).all()


def test_the_point_moves_against_the_noise_of_its_own_batches():
    """On ½|θ - x|² an update of rate η takes η of its batch's noise away from the gradients that follow."""
    eta, noise = 0.1, POINTS.var(0, correction=0).sum().item() / BATCH
    theta = POINTS.mean(0).expand(REPEATS, 3)
    stack = Stack([], theta, {}, gradients=True)
    stack.start_block(BATCH)
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        batch = torch.randint(len(POINTS), (REPEATS, BATCH), generator=generator)
        gradient = (theta.unsqueeze(1) - POINTS[batch]).mean(1)
        stack.each_update(gradient)
        theta = theta - eta * gradient
    assert gradient_noise(stack)[1].mean() > 1.02 * noise * BATCH
    assert (stack.gradient_sum / 10).square().sum(1).mean() < 0.5 * noise / 10


def test_the_estimates_are_the_formulas_of_the_appendix():
    drawn = torch.randint(len(POINTS), (10, 3, 7), generator=torch.Generator().manual_seed(2))
    theta = torch.randn(3, 3, generator=torch.Generator().manual_seed(3)).double()
    gradients = (theta.unsqueeze(1) - POINTS[drawn]).mean(2).numpy()
    found = quadratic(theta, drawn, batch_size=7).numpy()
    np.testing.assert_allclose(found, noise_of(gradients, 7), rtol=1e-12)


def test_undrawn_the_square_is_that_of_the_mean_and_there_is_no_trace():
    everything = torch.arange(len(POINTS)).expand(10, 1, -1)
    theta = torch.tensor([[1.0, -2.0, 0.5]]).double()
    square, trace = quadratic(theta, everything, batch_size=None)
    assert square.item() == pytest.approx((theta[0] - POINTS.mean(0)).square().sum().item(), rel=1e-12)
    assert trace.isnan().all()


def test_a_block_forgets_the_one_before_it():
    drawn = torch.randint(len(POINTS), (10, 2, BATCH), generator=torch.Generator().manual_seed(0))
    stack = Stack([], torch.zeros(2, 3).double(), {}, gradients=True)
    found = []
    for _ in range(2):
        stack.start_block(BATCH)
        for batch in drawn:
            stack.each_update(-POINTS[batch].mean(1))
        found.append(gradient_noise(stack))
    assert torch.equal(*found)


# --- Fourier -------------------------------------------------------------------------------------------------------


def numpys(embedding, order):
    """The inverse participation ratio of the rows of an embedding [elements, width], in an order, in float64."""
    power = (np.abs(np.fft.fft(embedding[order], axis=0)) ** 2).sum(1)[1 : len(order) // 2 + 1]
    return ((power / power.sum()) ** 2).sum()


def test_the_concentration_is_numpys():
    members = [("x_plus_y", 0), ("x_div_y", 0), ("permutation", 0), ("x3_plus_xy", 1), ("x_div_y", 2)]
    stack, decoders = stack_of(*members, modulus=23)
    order = {"x_div_y": [pow(5, k, 23) for k in range(22)]}  # 5 is the least primitive root of 23
    found = fourier_concentration(stack)
    for value, (operation, _), decoder in zip(found, members, decoders, strict=True):
        if operation == "permutation":
            assert value.isnan()
            continue
        embedding = decoder.tokens.weight[SPECIAL_TOKENS:].detach().double().numpy()
        assert value.item() == pytest.approx(numpys(embedding, order.get(operation, range(23))), rel=1e-5)


@pytest.mark.parametrize("operation", ["x_plus_y", "x_div_y"])
def test_one_frequency_is_one_and_all_alike_are_two_over_the_others(operation):
    stack, _ = stack_of((operation, 0), modulus=23)
    rows = stack.views["tokens.weight"][0, SPECIAL_TOKENS:]
    order = [pow(5, k, 23) for k in range(22)] if operation == "x_div_y" else range(23)
    place = torch.arange(len(order))
    rows[list(order)] = torch.cos(2 * torch.pi * 3 * place / len(order)).unsqueeze(1) + 7  # and what is constant
    assert fourier_concentration(stack).item() == pytest.approx(1, rel=1e-5)
    rows.zero_()
    rows[order[4]] = 1  # an impulse
    assert fourier_concentration(stack).item() == pytest.approx(2 / 22, rel=1e-5)


def test_without_a_frequency_there_is_no_concentration():
    stack, _ = stack_of(("x_div_y", 0), modulus=2)
    assert fourier_concentration(stack).isnan().all()
