"""What can be measured of the members as they train, beside loss and accuracy: at every log, on the device.

A measure of your own is one function and its entry in MEASURES; its name can then stand in any study's `measures`, its
columns stand in the records, and the report draws them. It reads and never writes, so that nothing else changes by it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from grok_utils.schedules import BLOCK
from grok_utils.tasks import SPECIAL_TOKENS, Task, cyclic_order


def squares(rows: Float[Tensor, "M P"]) -> Float[Tensor, " M"]:
    """The squared norm of each of `rows`. On a CPU `vector_norm` would round by 3e-5, this by 1e-7."""
    return rows.square().sum(1)


@dataclass
class Stack:
    """What a measure reads: M members at the end of a block of ten updates, all of it on their device.

    The sums over the block's gradients are kept where a measure asks for them (`Measure.gradients`), else empty.
    """

    tasks: list[Task]
    parameters: Float[Tensor, "M P"]  # zero where a task is smaller than the largest
    views: dict[str, Float[Tensor, "M ..."]]  # the same by the decoder's names
    gradients: bool
    batch_size: int | None = None  # of the block's updates; None where each is of all training pairs, undrawn

    def __post_init__(self) -> None:
        parameters = self.parameters if self.gradients else self.parameters[:, :0]
        self.gradient_sum = torch.zeros_like(parameters)  # [M, P]
        self.square_sum = torch.zeros_like(self.parameters[:, 0])  # of their squared norms [M]

    def start_block(self, batch_size: int | None) -> None:
        """Forget the last block's gradients."""
        self.batch_size = batch_size
        self.gradient_sum.zero_()
        self.square_sum.zero_()

    def each_update(self, gradient: Float[Tensor, "m P"], members: slice = slice(None)) -> None:
        """Add the gradient of an update of `members`, in place: a CUDA graph holds these additions too."""
        if self.gradients:
            self.gradient_sum[members].add_(gradient)  # `+=` would copy the slice onto itself
            self.square_sum[members].add_(squares(gradient))

    @cached_property
    def cyclic_rows(self) -> list[tuple[Int64[Tensor, " m"], Int64[Tensor, " elements"]]]:
        """For each of the cyclic orders of elements: the members that have it, and the embedding's rows in that order.

        Made once: at a log, a copy to the device would have the host wait.
        """
        members: dict[tuple[int, ...], list[int]] = {}
        for i, task in enumerate(self.tasks):
            order = cyclic_order(task.operation, task.elements)
            if order is not None:
                members.setdefault(order, []).append(i)
        tensor = partial(torch.tensor, device=self.parameters.device)
        return [(tensor(of), tensor(order) + SPECIAL_TOKENS) for order, of in members.items()]


class Measure(NamedTuple):
    """A function of the stack, its columns, and whether it reads the sums over the block's gradients.

    It gives the one column's values [M], or those of all columns [columns, M]; NaN, which a record keeps as null, where
    there is nothing to measure. The first paragraph of its docstring says in the report what it is.
    """

    of: Callable[[Stack], Tensor]
    columns: tuple[str, ...]
    gradients: bool = False


def weight_norm(stack: Stack) -> Float[Tensor, " M"]:
    """the L2 norm of all parameters"""
    return squares(stack.parameters).sqrt()


def gradient_noise(stack: Stack) -> Float[Tensor, "2 M"]:
    r"""$|G|^2$ of the training loss's gradient and the trace of its covariance over examples, $\mathrm{tr}\,\Sigma$:
    estimates from the ten gradients of a block (McCandlish et al. 2018, arXiv 1812.06162, appendix A.1), unbiased for a
    model that stands still; of one that moves the first is too small, even below zero, and the second too large

    Each gradient is of B examples, their mean of 10 B: the small and the large batch there. The first may be negative.
    Their ratio is the noise scale, in examples: take it of means, since a mean of ratios is biased.

    Batches are drawn with replacement, so the ten are independent whatever B is: G and Σ are those of the training set,
    each of its n pairs weighing 1/n, and nothing is to be corrected for the set's size. Unbiased holds for a point that
    stands still. It moves: with V the mean squared distance of the ten true gradients from their mean Ḡ, what is
    expected is |Ḡ|² - V/9 and tr Σ + V · 10 B/9, so large batches and steps make the noise seem larger. An update also
    moves against the noise of its own batch, which makes the ten differ more where the loss curves upwards. Both errors
    vanish with the rate. Where all pairs are in each update there is no noise to learn tr Σ from: it is null, and |G|²
    is that of the mean gradient.
    """
    of_mean = squares(stack.gradient_sum / BLOCK)
    mean = stack.square_sum / BLOCK
    if stack.batch_size is None:
        return torch.stack([of_mean, torch.full_like(mean, torch.nan)])
    small, large = stack.batch_size, BLOCK * stack.batch_size
    square = (large * of_mean - small * mean) / (large - small)
    return torch.stack([square, (mean - of_mean) / (1 / small - 1 / large)])


def fourier_concentration(stack: Stack) -> Float[Tensor, " M"]:
    r"""the inverse participation ratio $\sum_k q_k^2$ of the token embedding's power over frequencies:
    1 for a single frequency

    q_k is the share of frequency k = 1, …, (p - 1)/2 in the power |DFT|² of the elements' embeddings along the order of
    `tasks.cyclic_order`, summed over the width: 0, 1, …, p - 1, or the powers of a generator where the operation is
    multiplicative. 1 for a single frequency, 2/(p - 1) where all are alike; null for S₅.
    """
    embedding = stack.views["tokens.weight"]
    found = torch.full_like(embedding[:, 0, 0], torch.nan)
    for members, rows in stack.cyclic_rows:
        waves = torch.fft.rfft(embedding.index_select(0, members).index_select(1, rows), dim=1)[:, 1:]
        power = (waves.real.square() + waves.imag.square()).sum(2)
        found.index_copy_(0, members, power.square().sum(1) / power.sum(1).square())
    return found


MEASURES = {
    "weight_norm": Measure(weight_norm, ("weight_norm",)),
    "gradient_noise": Measure(gradient_noise, ("gradient_square", "gradient_trace"), gradients=True),
    "fourier_concentration": Measure(fourier_concentration, ("fourier_concentration",)),
}
# Of two columns the ratio of their means, over whatever is told together: seeds, logs. Not a column of the records.
RATIOS = {"noise_scale": ("gradient_trace", "gradient_square")}


def columns_of(measures: Iterable[str]) -> list[str]:
    """The columns of these measures, in their order."""
    return [column for name in measures for column in MEASURES[name].columns]
