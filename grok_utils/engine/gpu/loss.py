"""Cross-entropy and correctness of a GPU's logits, and the logits' gradient: one pass over them each.

What PyTorch compiles instead reads them three times and sums their gradient with a program a class. Sums over examples
are of parts, added up afterwards: no atomics, so a rerun is bit-identical.

PyTorch meets the kernels as operators of its own: of Triton code that it traces, it may assume that inputs are written.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from grok_utils.engine.gpu.launch import kernel


@triton.jit
def rows_of_logits(products, offset, label, weight, B, C, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    """A program's rows [ROWS, 1], where in `products` they lie, which of them exist; their logits, label and weight."""
    member, c = tl.program_id(1).to(tl.int64), tl.arange(0, WIDTH)[None, :]
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    row, live = member * B + r, (r < B) & (c < C)
    z = tl.load(offset + member * C + c, c < C, -float("inf"))
    z += tl.load(products + row * C + c, live, 0.0).to(tl.float32)
    # Labels in 32 bits, as the classes that they are compared with.
    return c, row, r < B, z, tl.load(label + row, r < B, 0).to(tl.int32), tl.load(weight + row, r < B, 0.0)


@kernel()
def loss_forward(
    products, offset, label, weight, sums, log_sums, B, C, WIDTH: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """Of ROWS examples the logarithms of their exponentials' sums, and `sums` [2] of loss and of correctness."""
    c, row, live, z, own, w = rows_of_logits(products, offset, label, weight, B, C, WIDTH, ROWS)
    largest = tl.max(z, 1, keep_dims=True)
    log_sum = largest + tl.log(tl.sum(tl.exp(z - largest), 1, keep_dims=True))
    tl.store(log_sums + row, log_sum, live)
    loss = log_sum - tl.sum(tl.where(c == own, z, 0.0), 1, keep_dims=True)
    predicted = tl.min(tl.where((z == largest) | (z != z), c, WIDTH), 1, keep_dims=True)  # as argmax: the first
    sums += (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)) * 2
    tl.store(sums, tl.sum(loss * w))
    tl.store(sums + 1, tl.sum(tl.where(predicted == own, w, 0.0)))


@kernel()
def loss_backward(
    products, offset, label, weight, log_sums, d_sums, d_products, d_offset, B, C,
    WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Gradients of ROWS examples' logits, and their sum [C]."""
    c, row, live, z, own, w = rows_of_logits(products, offset, label, weight, B, C, WIDTH, ROWS)
    w *= tl.load(d_sums + tl.program_id(1) * 2)
    d = w * (tl.exp(z - tl.load(log_sums + row, live, 0.0)) - tl.where(c == own, 1.0, 0.0))
    tl.store(d_products + row * C + c, d, live & (c < C))
    d_offset += (tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)) * C
    tl.store(d_offset + tl.arange(0, WIDTH), tl.sum(tl.where(live, d, 0.0), 0), tl.arange(0, WIDTH) < C)


FORWARD, BACKWARD = 512, 2048  # logits that a program takes, if they are of more than one example


def tile(products: Tensor, numbers: int) -> tuple[int, tuple[int, int, int, int], int]:
    """How many programs a member has; how many examples and classes, and of them a program's tile; and its warps."""
    _, examples, classes = products.shape
    width = triton.next_power_of_2(classes)
    rows = max(numbers // width, 1)
    return -(-examples // rows), (examples, classes, width, rows), rows * width // 512


@torch.library.custom_op("grok_utils::loss", mutates_args=())
def loss(products: Tensor, offset: Tensor, label: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`stack.measured`, for parts [M, parts, 2] to be summed; and the logarithms [M, B] of the exponentials' sums."""
    sums, log_sums = loss_shapes(products, offset, label, weight)
    parts, sizes, warps = tile(products, FORWARD)
    inputs = (t.contiguous() for t in (products, offset, label, weight))
    loss_forward[(parts, len(products))](*inputs, sums, log_sums, *sizes, num_warps=warps)
    return sums, log_sums


@loss.register_fake
def loss_shapes(products: Tensor, offset: Tensor, label: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What `loss` gives."""
    return offset.new_empty(len(offset), tile(products, FORWARD)[0], 2), weight.new_empty(weight.shape)


@torch.library.custom_op("grok_utils::loss_gradient", mutates_args=())
def loss_gradient(
    products: Tensor, offset: Tensor, label: Tensor, weight: Tensor, log_sums: Tensor, d_sums: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of `loss`'s products and, for parts [M, parts, C] to be summed, of its offset."""
    d_products, d_offset = loss_gradient_shapes(products, offset)
    parts, sizes, warps = tile(products, BACKWARD)
    inputs = (t.contiguous() for t in (products, offset, label, weight, log_sums, d_sums))
    loss_backward[(parts, len(products))](*inputs, d_products, d_offset, *sizes, num_warps=warps)
    return d_products, d_offset


@loss_gradient.register_fake
def loss_gradient_shapes(products: Tensor, offset: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    """What `loss_gradient` gives."""
    parts = tile(products, BACKWARD)[0]
    return products.new_empty(products.shape), offset.new_empty(len(offset), parts, offset.shape[2])


def saved(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keep what the gradients need."""
    ctx.save_for_backward(*inputs, output[1])


def gradients(ctx: Any, d_sums: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of `loss`'s arguments."""
    d_products, d_offset = loss_gradient(*ctx.saved_tensors, d_sums[:, 0])  # of all parts the same
    return d_products, d_offset.sum(1, keepdim=True), None, None


loss.register_autograd(gradients, setup_context=saved)


def measured(products: Tensor, offset: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """`stack.measured`."""
    return loss(products, offset, label, weight)[0].sum(1)
