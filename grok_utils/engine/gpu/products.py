"""A GPU's matrix products: in float32 by tensor cores, as exact as without; in a lower precision cuBLAS's.

Tensor cores take ten of a float32's 23 bits behind the point (tf32), so cuBLAS leaves them idle in float32. Here each
number is the sum of two that they take whole, its leading bits and what is left, and a product is three of theirs
(Markidis et al. 2018, arXiv 1803.04014): faster than cuBLAS's float32, and no farther from float64. A tile of the
output is one program's, which sums in one order: no atomics, so a rerun is bit-identical.

PyTorch meets the kernel as an operator of its own: of Triton code that it traces, it may assume that it writes inputs.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from grok_utils.engine import stack
from grok_utils.engine.gpu.launch import kernel

# A program's tile of the output, [M, N], how much of the sum it takes at a time, its warps and its stages of loading.
# An H100 multiplies fastest by four warps together, if both factors lie along the sum, else by each on its own.
ALONG, ACROSS = (128, 64, 32, 4, 3), (64, 64, 16, 2, 4)


@kernel()
def tile_of_product(
    a, b, out, M, N, K, a_member, a_row, a_column, b_member, b_row, b_column,
    WHOLE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A tile of one member's `out` [M, N] = `a` [M, K] · `b` [K, N]; WHOLE says that BK divides K."""
    member, across = tl.program_id(1).to(tl.int64), tl.cdiv(N, BN)
    m = tl.program_id(0) // across * BM + tl.arange(0, BM)
    n = tl.program_id(0) % across * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    # Rows past the last are the first ones again: loads need no mask.
    a += member * a_member + (m % M)[:, None] * a_row + k[None, :] * a_column
    b += member * b_member + k[:, None] * b_row + (n % N)[None, :] * b_column
    acc = tl.zeros([BM, BN], tl.float32)
    for start in range(0, K, BK):
        if WHOLE:
            left, right = tl.load(a), tl.load(b)
        else:
            live = k < K - start
            left, right = tl.load(a, live[None, :], 0.0), tl.load(b, live[:, None], 0.0)
        acc = tl.dot(left, right, acc, input_precision="tf32x3")
        a += BK * a_column
        b += BK * b_row
    tl.store(out + member * M * N + m[:, None] * N + n[None, :], acc, (m < M)[:, None] & (n < N)[None, :])


def exact(dtype: torch.dtype) -> bool:
    """Whether products of such numbers are to be as exact as float32: not in bf16, nor where PyTorch is set to tf32."""
    return dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"


def mapped_type(x: Tensor) -> torch.dtype:
    """In which type a map takes rows like `x`: bf16 under autocast, whose rule our operators do not know."""
    return torch.bfloat16 if torch.is_autocast_enabled("cuda") else x.dtype


@torch.library.custom_op("grok_utils::products", mutates_args=())
def products(a: Tensor, b: Tensor) -> Tensor:
    """Each member's `a` · `b`: [G, M, N] of [G, M, K] and [G, K, N]; by cuBLAS in a lower precision than float32."""
    if not exact(a.dtype):
        return torch.bmm(a, b)
    out, (members, m, k), n = products_shape(a, b), a.shape, b.shape[2]
    bm, bn, bk, warps, stages = ALONG if a.stride(2) == b.stride(1) == 1 else ACROSS
    grid, sizes = (triton.cdiv(m, bm) * triton.cdiv(n, bn), members), (*a.stride(), *b.stride(), k % bk == 0)
    tile_of_product[grid](a, b, out, m, n, k, *sizes, bm, bn, bk, num_warps=warps, num_stages=stages)
    return out


@products.register_fake
def products_shape(a: Tensor, b: Tensor) -> Tensor:
    """What `products` fills."""
    return a.new_empty(*a.shape[:2], b.shape[2])


def saved(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    """Keep what `gradients` needs."""
    ctx.save_for_backward(*inputs)


def gradients(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `products`' factors, the second as its transpose's: a map's weight."""
    a, b = ctx.saved_tensors
    return products(d_out, b.mT), products(d_out.mT, a).mT


products.register_autograd(gradients, setup_context=saved)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`stack.linear`."""
    dtype = mapped_type(x)
    return stack.linear(x.to(dtype), weight.to(dtype), bias, products)
