"""What follows the heads in a block on a GPU: projection, residual, LayerNorm, FFN, residual, LayerNorm.

Models so small wait for memory, not for products. Where no gradient follows, one program takes some rows through all
of it. Else products are the usual ones, and between two of them one program takes some rows and does all at once;
backward that is the gradient of each row, and the sums over rows, added up afterwards (no atomics, so a rerun is
bit-identical). What PyTorch compiles instead goes three times through the same rows.

PyTorch meets it as an operator of its own: of Triton code that it traces, it may assume that inputs are written.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from grok_utils.engine.gpu.products import exact, mapped_type, products

CHUNK = 16  # rows that a program takes backward


@triton.jit
def normal(s, D: tl.constexpr):
    """Rows less their mean, over their deviation; and one over that (LayerNorm's eps is 1e-5)."""
    s -= tl.sum(s, 1, keep_dims=True) / D
    scale = tl.rsqrt(tl.sum(s * s, 1, keep_dims=True) / D + 1e-5)
    return s * scale, scale


@triton.jit
def phi(z):
    """The standard normal distribution function, as near as by erf (1e-7) in half the instructions.

    Below zero it is 2 to the power of a polynomial in |z|, fitted for 0 to 6.5 to the logarithm of the true one.
    """
    a = tl.minimum(tl.abs(z), 6.5)
    p = -2.3692422e-08 * a + 7.4311936e-07
    p = p * a - 9.8937171e-06
    p = p * a + 7.1088005e-05
    p = p * a - 2.6371924e-04
    p = p * a - 2.9147683e-05
    p = p * a + 6.9793486e-03
    p = p * a - 5.2461963e-02
    p = p * a - 4.5921421e-01
    p = p * a - 1.1511050
    below = tl.exp2(p * a - 1)
    return tl.where(z > 0, 1 - below, below)


@triton.jit
def block_forward(
    x, attention, weights, strides, vectors, of_vectors, out, low, R, keep,
    D: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, STEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """BM rows through the rest of a block: all as `low`, and the last `keep` as `out`.

    From one member's weights to the next's are `strides` times STEP numbers, 1 or 8: so much is known of alignment.
    """
    member, c, k = tl.program_id(1).to(tl.int64), tl.arange(0, D)[None, :], tl.arange(0, BK)
    r = tl.program_id(0) * BM + tl.arange(0, BM)[:, None]
    live, row = r < R, member * R + r
    project, up, down = weights
    b_project, gain1, offset1, b_up, b_down, gain2, offset2 = vectors
    project += member * strides[0] * STEP
    up += member * strides[1] * STEP
    down += member * strides[2] * STEP
    y = tl.load(x + row * D + c, live, 0.0) + tl.load(b_project + member * of_vectors[0] + c)
    for i in range(0, D, BK):
        left = tl.load(attention + row * D + i + k[None, :], live, 0.0)
        y = tl.dot(left, tl.load(project + c * D + i + k[:, None]), y, input_precision=PRECISION)
    a, _scale = normal(y, D)
    a = a * tl.load(gain1 + member * of_vectors[1] + c) + tl.load(offset1 + member * of_vectors[2] + c)
    rows, y = a.to(low.dtype.element_ty), a + tl.load(b_down + member * of_vectors[4] + c)
    for i in range(0, 4 * D, BK):
        z = tl.dot(rows, tl.load(up + (i + k[None, :]) * D + tl.arange(0, D)[:, None]), input_precision=PRECISION)
        z += tl.load(b_up + member * of_vectors[3] + i + k[None, :])
        h = (z * phi(z)).to(rows.dtype)
        y = tl.dot(h, tl.load(down + c * 4 * D + i + k[:, None]), y, input_precision=PRECISION)
    value, _scale = normal(y, D)
    value = value * tl.load(gain2 + member * of_vectors[5] + c) + tl.load(offset2 + member * of_vectors[6] + c)
    tl.store(low + row * D + c, value, live)
    tl.store(out + (member * keep + r - (R - keep)) * D + c, value, live & (r >= R - keep))


@triton.jit
def norm_forward(
    x, y, bias, gain, offset, out, low, R, keep, of_bias, of_gain, of_offset, D: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """ROWS rows of LayerNorm(`x` + `y` + `bias`): the last `keep` as `out`, and all as `low` unless that is None."""
    member, c = tl.program_id(1).to(tl.int64), tl.arange(0, D)[None, :]
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    at, live = (member * R + r) * D + c, r < R
    s = tl.load(x + at, live, 0.0) + tl.load(y + at, live, 0.0).to(tl.float32)
    s, _scale = normal(s + tl.load(bias + member * of_bias + c), D)
    s = s * tl.load(gain + member * of_gain + c) + tl.load(offset + member * of_offset + c)
    tl.store(out + (member * keep + r - (R - keep)) * D + c, s, live & (r >= R - keep))
    if low is not None:
        tl.store(low + at, s, live)


@triton.jit
def norm_backward(
    x, y, bias, gain, d_out, d_low, d_x, d_y, sums, R, keep, of_bias, of_gain,
    D: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, TWICE: tl.constexpr,
):  # fmt: skip
    """Gradients of CHUNK rows of LayerNorm's sum `x` + `y` + `bias`, and 3 D of 10 D `sums`: of gain, offset and bias.

    They go to `d_x` and, if TWICE, to `d_y`. Its result has the gradients `d_low` and, of `keep` rows, `d_out`.
    """
    member, c = tl.program_id(1).to(tl.int64), tl.arange(0, D)[None, :]
    b, g = tl.load(bias + member * of_bias + c), tl.load(gain + member * of_gain + c)
    d_gain, d_offset = tl.zeros([ROWS, D], tl.float32), tl.zeros([ROWS, D], tl.float32)
    d_bias = tl.zeros([ROWS, D], tl.float32)
    for start in range(0, CHUNK, ROWS):
        r = tl.program_id(0) * CHUNK + start + tl.arange(0, ROWS)[:, None]
        at, live = (member * R + r) * D + c, r < R
        s, scale = normal(tl.load(x + at, live, 0.0) + tl.load(y + at, live, 0.0).to(tl.float32) + b, D)
        d = tl.load(d_out + (member * keep + r - (R - keep)) * D + c, live & (r >= R - keep), 0.0)
        d += tl.load(d_low + at, live, 0.0).to(tl.float32)
        d_s = d * g
        along = tl.sum(d_s * s, 1, keep_dims=True) / D
        d_sum = scale * (d_s - tl.sum(d_s, 1, keep_dims=True) / D - s * along)
        tl.store(d_x + at, d_sum, live)
        if TWICE:
            tl.store(d_y + at, d_sum, live)
        d_gain += d * s
        d_offset += d
        d_bias += d_sum
    sums += (member * tl.num_programs(0) + tl.program_id(0)) * 10 * D + tl.arange(0, D)
    tl.store(sums, tl.sum(d_gain, 0))
    tl.store(sums + D, tl.sum(d_offset, 0))
    tl.store(sums + 2 * D, tl.sum(d_bias, 0))


@triton.jit
def gelu_forward(y, bias, out, R, of_bias, C: tl.constexpr, ROWS: tl.constexpr):
    """ROWS rows of GELU(`y` + `bias`)."""
    member, c = tl.program_id(1).to(tl.int64), tl.arange(0, C)[None, :]
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    at = (member * R + r) * C + c
    z = tl.load(y + at, r < R, 0.0).to(tl.float32) + tl.load(bias + member * of_bias + c)
    tl.store(out + at, z * phi(z), r < R)


@triton.jit
def gelu_backward(
    y, bias, d, sums, R, of_bias, D: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr
):  # fmt: skip
    """CHUNK rows of `d` by the slope of GELU at `y` + `bias`, in place, and 4 D of 10 D `sums` of them."""
    C: tl.constexpr = 4 * D
    member, c = tl.program_id(1).to(tl.int64), tl.arange(0, C)[None, :]
    b, total = tl.load(bias + member * of_bias + c), tl.zeros([ROWS, C], tl.float32)
    for start in range(0, CHUNK, ROWS):
        r = tl.program_id(0) * CHUNK + start + tl.arange(0, ROWS)[:, None]
        at = (member * R + r) * C + c
        z = tl.load(y + at, r < R, 0.0).to(tl.float32) + b
        slope = phi(z) + z * tl.exp(-0.5 * z * z) * 0.3989422804014327
        d_y = tl.load(d + at, r < R, 0.0).to(tl.float32) * slope
        tl.store(d + at, d_y, r < R)
        total += d_y
    tl.store(sums + (member * tl.num_programs(0) + tl.program_id(0)) * 10 * D + tl.arange(0, C), tl.sum(total, 0))


def tile_of_block(width: int, dtype: torch.dtype) -> tuple[int, int, int, int]:
    """Rows of a program of `block_forward`, how much of a sum it takes at a time, its warps and stages of loading."""
    if width > 128:
        return 64, 32, 8, 1
    return 64, min(width, 64), 4, 3 if dtype == torch.bfloat16 else 1


def rows_of_gelu(width: int) -> int:
    """How many rows of so many numbers GELU's programs take at a time: a divisor of CHUNK."""
    return min(max(2048 // width, 1), CHUNK)


@torch.library.custom_op("grok_utils::rest_of_block", mutates_args=())
def whole(
    x: Tensor, attention: Tensor, project: Tensor, b_project: Tensor, gain1: Tensor, offset1: Tensor, up: Tensor,
    b_up: Tensor, down: Tensor, b_down: Tensor, gain2: Tensor, offset2: Tensor, keep: int, save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The last `keep` rows to add to, all to be mapped, and what gradients need, empty unless `save`."""
    x, attention = x.contiguous(), attention.contiguous()
    members, count, width = x.shape
    if save:
        y1 = products(attention, project.mT)
        a, rows = norm(x, y1, b_project, gain1, offset1, count, x.dtype != attention.dtype)
        y2 = products(rows if rows.numel() else a, up.mT)
        h, tile = torch.empty_like(y2), rows_of_gelu(4 * width)
        gelu_forward[(triton.cdiv(count, tile), members)](y2, b_up, h, count, b_up.stride(0), 4 * width, tile)
        y3 = products(h, down.mT)
        return *norm(a, y3, b_down, gain2, offset2, keep, True), y1, a, rows, y2, h, y3
    out, low, *nothing = whole_shapes(x, attention, keep, save)
    weights, vectors = (project, up, down), (b_project, gain1, offset1, b_up, b_down, gain2, offset2)
    bm, bk, warps, stages = tile_of_block(width, low.dtype)
    step = 8 if all(w.stride(0) % 8 == 0 for w in weights) else 1
    strides, of_vectors = tuple(w.stride(0) // step for w in weights), tuple(v.stride(0) for v in vectors)
    block_forward[(triton.cdiv(count, bm), members)](
        x, attention, weights, strides, vectors, of_vectors, out, low, count, keep,
        width, bm, bk, step, "tf32x3" if exact(low.dtype) else "tf32", num_warps=warps, num_stages=stages,
    )  # fmt: skip
    return out, low, *nothing


@whole.register_fake
def whole_shapes(x: Tensor, attention: Tensor, *others: Any) -> tuple[Tensor, ...]:
    """What `whole` gives; rows to be mapped are kept twice only where they have another type."""
    (members, count, width), (*_, keep, save), like = x.shape, others, attention.new_empty
    size, wide = ((members, count, width), (members, count, 4 * width)) if save else ((0,), (0,))
    out, low, a = x.new_empty(members, keep, width), like(members, count, width), x.new_empty(size)
    return out, low, like(size), a, like(size if x.dtype != attention.dtype else 0), like(wide), like(wide), like(size)


def norm(
    x: Tensor, y: Tensor, bias: Tensor, gain: Tensor, offset: Tensor, keep: int, mapped: bool
) -> tuple[Tensor, Tensor]:
    """LayerNorm of the sum of `x`, `y` and `bias`: the last `keep` rows like `x`, and if `mapped` all like `y`."""
    members, count, width = x.shape
    out, low = x.new_empty(members, keep, width), y.new_empty(y.shape if mapped else 0)
    sizes = count, keep, bias.stride(0), gain.stride(0), offset.stride(0), width, 8
    inputs = x, y, bias, gain, offset, out, low if mapped else None
    norm_forward[(triton.cdiv(count, 8), members)](*inputs, *sizes, num_warps=2)
    return out, low


def keep_whole(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep what `whole_gradients` needs."""
    x, attention, project, b_project, gain1, _, up, b_up, down, b_down, gain2, _, _, _ = inputs
    ctx.save_for_backward(x, attention, project, b_project, gain1, up, b_up, down, b_down, gain2, *output[2:])


@torch.library.custom_op("grok_utils::rest_of_block_gradient", mutates_args=())
def gradient(
    x: Tensor, attention: Tensor, project: Tensor, b_project: Tensor, gain1: Tensor, up: Tensor, b_up: Tensor,
    down: Tensor, b_down: Tensor, gain2: Tensor, y1: Tensor, a: Tensor, rows: Tensor, y2: Tensor, h: Tensor,
    y3: Tensor, d_out: Tensor, d_low: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of rows, mixed values and weights; and [M, 10 D] of the vectors, in the layers' order."""
    x, attention = x.contiguous(), attention.contiguous()
    members, count, width = x.shape
    chunks = triton.cdiv(count, CHUNK)
    sums = x.new_empty(members, chunks, 10 * width)
    norm1, gelu, norm2 = sums.split([3 * width, 4 * width, 3 * width], 2)
    d_a, d_y3 = through_norm(a, y3, b_down, gain2, d_out.contiguous(), d_low.contiguous(), norm2)
    d_y2 = products(d_y3, down)
    sizes = count, b_up.stride(0), width, rows_of_gelu(4 * width), CHUNK
    gelu_backward[(chunks, members)](y2, b_up, d_y2, gelu, *sizes)
    d_x, d_y1 = through_norm(x, y1, b_project, gain1, d_a, products(d_y2, up), norm1)
    d_up, d_down = products(d_y2.mT, rows if rows.numel() else a), products(d_y3.mT, h)
    return d_x, products(d_y1, project), products(d_y1.mT, attention), d_up, d_down, sums.sum(1)


@gradient.register_fake
def gradient_shapes(x: Tensor, attention: Tensor, project: Tensor, *others: Any) -> tuple[Tensor, ...]:
    """What `gradient` gives."""
    _, _, up, _, down, *_ = others
    like = (t.new_empty(t.shape) for t in (x, attention, project, up, down))
    return *like, x.new_empty(len(x), 10 * x.shape[2])


def through_norm(
    x: Tensor, y: Tensor, bias: Tensor, gain: Tensor, d_out: Tensor, d_low: Tensor, sums: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of `x` and of `y`, one tensor if of one type; and into `sums` those of gain, offset and `bias`."""
    members, rows, width = x.shape
    d_x, d_y = torch.empty_like(x), torch.empty_like(y) if y.dtype != x.dtype else None
    sizes = rows, d_out.shape[1], bias.stride(0), gain.stride(0), width, 4, CHUNK, d_y is not None
    norm_backward[(sums.shape[1], members)](x, y, bias, gain, d_out, d_low, d_x, d_y, sums, *sizes, num_warps=1)
    return d_x, d_x if d_y is None else d_y


def whole_gradients(ctx: Any, d_out: Tensor, d_low: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of `whole`'s arguments."""
    d_x, d_attention, d_project, d_up, d_down, vectors = gradient(*ctx.saved_tensors, d_out, d_low)
    sizes = [width := d_x.shape[2], width, width, 4 * width, width, width, width]
    gain1, offset1, b_project, b_up, gain2, offset2, b_down = vectors.split(sizes, 1)
    of_first = d_x, d_attention, d_project, b_project, gain1, offset1
    return *of_first, d_up, b_up, d_down, b_down, gain2, offset2, None, None


whole.register_autograd(whole_gradients, setup_context=keep_whole)


def rest_of_block(
    layers: list[tuple[Tensor, Tensor]], x: Tensor, attention: Tensor, keep: int, _linear: Any
) -> tuple[Tensor, Tensor]:
    """`stack.rest_of_block`; in bf16 rows to be mapped come as such."""
    dtype, (project, norm1, up, down, norm2) = mapped_type(x), layers
    project, up, down = ((weight.to(dtype), bias) for weight, bias in (project, up, down))
    save = torch.is_grad_enabled() or x.shape[-1] < 16  # of which tensor cores take no fewer
    out, low, *_ = whole(x, attention.to(dtype), *project, *norm1, *up, *down, *norm2, keep, save)
    return out, low
