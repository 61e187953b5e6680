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

from grok_utils.engine.gpu.launch import kernel, strides_of
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


@kernel("R", "keep")
def block_forward(
    x, attention, weights, strides, vectors, of_vectors, out, low, R, keep,
    D: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr, FINAL: tl.constexpr,
):  # fmt: skip
    """BM rows through the rest of a block: all as `low`, through a FINAL LayerNorm or not, the last `keep` as `out`."""
    member, c, k = tl.program_id(1).to(tl.int64), tl.arange(0, D)[None, :], tl.arange(0, BK)
    r = tl.program_id(0) * BM + tl.arange(0, BM)[:, None]
    live, row = r < R, member * R + r
    project, up, down = weights
    b_project, gain1, offset1, b_up, b_down, gain2, offset2, gain3, offset3 = vectors
    project += member * strides[0]
    up += member * strides[1]
    down += member * strides[2]
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
    tl.store(out + (member * keep + r - (R - keep)) * D + c, value, live & (r >= R - keep))
    if FINAL:
        value, _scale = normal(value, D)
        value = value * tl.load(gain3 + member * of_vectors[7] + c) + tl.load(offset3 + member * of_vectors[8] + c)
    tl.store(low + row * D + c, value, live)


@kernel("R", "keep")
def norm_forward(
    x, y, bias, gain, offset, gain3, offset3, out, low, R, keep, of_bias, of_gain, of_offset, of_gain3, of_offset3,
    D: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """ROWS rows of LayerNorm(`x` + `y` + `bias`): the last `keep` as `out`, and all as `low` unless that is None.

    Unless `gain3` and `offset3` are None, `low` has been through a final LayerNorm too.
    """
    member, c = tl.program_id(1).to(tl.int64), tl.arange(0, D)[None, :]
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    at, live = (member * R + r) * D + c, r < R
    s = tl.load(x + at, live, 0.0) + tl.load(y + at, live, 0.0).to(tl.float32)
    s, _scale = normal(s + tl.load(bias + member * of_bias + c), D)
    s = s * tl.load(gain + member * of_gain + c) + tl.load(offset + member * of_offset + c)
    tl.store(out + (member * keep + r - (R - keep)) * D + c, s, live & (r >= R - keep))
    if gain3 is not None:
        s, _scale = normal(s, D)
        s = s * tl.load(gain3 + member * of_gain3 + c) + tl.load(offset3 + member * of_offset3 + c)
    if low is not None:
        tl.store(low + at, s, live)


@triton.jit
def through_normal(d, s, scale, D: tl.constexpr):
    """Gradients of the rows of which `normal` made `s` and `scale`."""
    return scale * (d - tl.sum(d, 1, keep_dims=True) / D - s * (tl.sum(d * s, 1, keep_dims=True) / D))


@kernel("R", "keep")
def norm_backward(
    x, y, bias, gain, offset, gain3, d_out, d_low, d_x, d_y, sums, R, keep, of_bias, of_gain, of_offset, of_gain3,
    D: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, ALL: tl.constexpr,
):  # fmt: skip
    """Gradients of CHUNK rows of LayerNorm's sum `x` + `y` + `bias`, and `sums` of gain, offset, bias and both final.

    They go to `d_x` and, unless that is None, to `d_y`. `d_low` is the gradient of `norm_forward`'s `low`, `d_out` of
    its `keep` rows; from a chunk's sums to the next's are ALL numbers.
    """
    member, c = tl.program_id(1).to(tl.int64), tl.arange(0, D)[None, :]
    b, g = tl.load(bias + member * of_bias + c), tl.load(gain + member * of_gain + c)
    d_gain, d_offset = tl.zeros([ROWS, D], tl.float32), tl.zeros([ROWS, D], tl.float32)
    d_bias, d_gain3, d_offset3 = d_gain, d_gain, d_gain
    for start in range(0, CHUNK, ROWS):
        r = tl.program_id(0) * CHUNK + start + tl.arange(0, ROWS)[:, None]
        at, live = (member * R + r) * D + c, r < R
        s, scale = normal(tl.load(x + at, live, 0.0) + tl.load(y + at, live, 0.0).to(tl.float32) + b, D)
        d = tl.load(d_low + at, live, 0.0).to(tl.float32)
        if gain3 is not None:
            t, scale3 = normal(s * g + tl.load(offset + member * of_offset + c), D)
            d_gain3 += d * t
            d_offset3 += d
            d = through_normal(d * tl.load(gain3 + member * of_gain3 + c), t, scale3, D)
        d += tl.load(d_out + (member * keep + r - (R - keep)) * D + c, live & (r >= R - keep), 0.0)
        d_sum = through_normal(d * g, s, scale, D)
        tl.store(d_x + at, d_sum, live)
        if d_y is not None:
            tl.store(d_y + at, d_sum, live)
        d_gain += d * s
        d_offset += d
        d_bias += d_sum
    sums += (member * tl.num_programs(0) + tl.program_id(0)) * ALL + tl.arange(0, D)
    tl.store(sums, tl.sum(d_gain, 0))
    tl.store(sums + D, tl.sum(d_offset, 0))
    tl.store(sums + 2 * D, tl.sum(d_bias, 0))
    if gain3 is not None:
        tl.store(sums + 3 * D, tl.sum(d_gain3, 0))
        tl.store(sums + 4 * D, tl.sum(d_offset3, 0))


@kernel("R")
def gelu_forward(y, bias, out, R, of_bias, C: tl.constexpr, ROWS: tl.constexpr):
    """ROWS rows of GELU(`y` + `bias`)."""
    member, c = tl.program_id(1).to(tl.int64), tl.arange(0, C)[None, :]
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    at = (member * R + r) * C + c
    z = tl.load(y + at, r < R, 0.0).to(tl.float32) + tl.load(bias + member * of_bias + c)
    tl.store(out + at, z * phi(z), r < R)


@kernel("R")
def gelu_backward(
    y, bias, d, sums, R, of_bias, C: tl.constexpr, ROWS: tl.constexpr, CHUNK: tl.constexpr, ALL: tl.constexpr
):  # fmt: skip
    """CHUNK rows of `d` by the slope of GELU at `y` + `bias`, in place; and `sums` [C], ALL from the next chunk's."""
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
    tl.store(sums + (member * tl.num_programs(0) + tl.program_id(0)) * ALL + tl.arange(0, C), tl.sum(total, 0))


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
    b_up: Tensor, down: Tensor, b_down: Tensor, gain2: Tensor, offset2: Tensor, gain3: Tensor | None,
    offset3: Tensor | None, keep: int, save: bool,
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
        return *norm(a, y3, b_down, gain2, offset2, keep, True, gain3, offset3), y1, a, rows, y2, h, y3
    out, low, *nothing = whole_shapes(x, attention, keep, save)
    final = (gain2, offset2) if gain3 is None else (gain3, offset3)
    weights, vectors = (project, up, down), (b_project, gain1, offset1, b_up, b_down, gain2, offset2, *final)
    bm, bk, warps, stages = tile_of_block(width, low.dtype)
    precision = "tf32x3" if exact(low.dtype) else "tf32"
    block_forward[(triton.cdiv(count, bm), members)](
        x, attention, weights, strides_of(*weights), vectors, strides_of(*vectors), out, low, count, keep,
        width, bm, bk, precision, gain3 is not None, num_warps=warps, num_stages=stages,
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
    x: Tensor, y: Tensor, bias: Tensor, gain: Tensor, offset: Tensor, keep: int, mapped: bool,
    gain3: Tensor | None = None, offset3: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """LayerNorm of the sum of `x`, `y` and `bias`: the last `keep` rows like `x`, and if `mapped` all like `y`."""
    members, count, width = x.shape
    out, low = x.new_empty(members, keep, width), y.new_empty(y.shape if mapped else 0)
    vectors = bias, gain, offset, gain3, offset3
    sizes = count, keep, *strides_of(*vectors), width, 8
    norm_forward[(triton.cdiv(count, 8), members)](x, y, *vectors, out, low if mapped else None, *sizes, num_warps=2)
    return out, low


def keep_whole(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep what `gradient` needs."""
    x, attention, project, b_project, gain1, _, up, b_up, down, b_down, gain2, offset2, gain3, *_ = inputs
    weights = project, b_project, gain1, up, b_up, down, b_down, gain2, offset2, gain3
    ctx.save_for_backward(x, attention, *weights, *output[2:])


@torch.library.custom_op("grok_utils::rest_of_block_gradient", mutates_args=())
def gradient(
    x: Tensor, attention: Tensor, project: Tensor, b_project: Tensor, gain1: Tensor, up: Tensor, b_up: Tensor,
    down: Tensor, b_down: Tensor, gain2: Tensor, offset2: Tensor, gain3: Tensor | None, y1: Tensor, a: Tensor,
    rows: Tensor, y2: Tensor, h: Tensor, y3: Tensor, d_out: Tensor, d_low: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of rows, mixed values and weights; and of the vectors, side by side, for chunks of rows to be summed.

    They are gain, offset and bias of the first LayerNorm, the bias of `up`, and those of the second and the final one.
    """
    x, attention, d_out, d_low = (t.contiguous() for t in (x, attention, d_out, d_low))
    members, count, width = x.shape
    sums = sums_of_vectors(x, gain3)
    norm1, gelu, norm2 = sums.split([3 * width, 4 * width, sums.shape[2] - 7 * width], 2)
    d_a, d_y3 = through_norm(a, y3, (b_down, gain2, offset2, gain3), d_out, d_low, norm2)
    d_y2, tile = products(d_y3, down), rows_of_gelu(4 * width)
    sizes = count, b_up.stride(0), 4 * width, tile, CHUNK, sums.shape[2]
    gelu_backward[(sums.shape[1], members)](y2, b_up, d_y2, gelu, *sizes)
    d_x, d_y1 = through_norm(x, y1, (b_project, gain1, None, None), d_a, products(d_y2, up), norm1)
    d_up, d_down = products(d_y2.mT, rows if rows.numel() else a), products(d_y3.mT, h)
    return d_x, products(d_y1, project), products(d_y1.mT, attention), d_up, d_down, sums


@gradient.register_fake
def gradient_shapes(x: Tensor, attention: Tensor, project: Tensor, *others: Any) -> tuple[Tensor, ...]:
    """What `gradient` gives."""
    _, _, up, _, down, _, _, _, gain3, *_ = others
    return *(t.new_empty(t.shape) for t in (x, attention, project, up, down)), sums_of_vectors(x, gain3)


def sums_of_vectors(x: Tensor, gain3: Tensor | None) -> Tensor:
    """Room for the gradients of a block's vectors, by chunks of rows `x`: 10 D, and 2 D of a final LayerNorm."""
    members, count, width = x.shape
    return x.new_empty(members, -(-count // CHUNK), (10 if gain3 is None else 12) * width)


def through_norm(
    x: Tensor, y: Tensor, vectors: tuple[Tensor | None, ...], d_out: Tensor, d_low: Tensor, sums: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of `norm`'s `x` and `y`, one tensor if of one type; and into `sums` those of its vectors."""
    members, rows, width = x.shape
    d_x, d_y = torch.empty_like(x), torch.empty_like(y) if y.dtype != x.dtype else None
    sizes = rows, d_out.shape[1], *strides_of(*vectors), width, 4, CHUNK, sums.stride(1)
    norm_backward[(sums.shape[1], members)](x, y, *vectors, d_out, d_low, d_x, d_y, sums, *sizes, num_warps=1)
    return d_x, d_x if d_y is None else d_y


def whole_gradients(ctx: Any, d_out: Tensor, d_low: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of `whole`'s arguments."""
    d_x, d_attention, d_project, d_up, d_down, sums = gradient(*ctx.saved_tensors, d_out, d_low)
    width, vectors = d_x.shape[2], sums.sum(1)
    sizes = [width, width, width, 4 * width] + [width] * (vectors.shape[1] // width - 7)
    gain1, offset1, b_project, b_up, gain2, offset2, b_down, *final = vectors.split(sizes, 1)
    of_first = d_x, d_attention, d_project, b_project, gain1, offset1
    return *of_first, d_up, b_up, d_down, b_down, gain2, offset2, *(final or (None, None)), None, None


whole.register_autograd(whole_gradients, setup_context=keep_whole)


def rest_of_block(
    layers: list[tuple[Tensor, Tensor]], x: Tensor, attention: Tensor, keep: int, _linear: Any
) -> tuple[Tensor, Tensor]:
    """`stack.rest_of_block`; in bf16 rows to be mapped come as such."""
    dtype, (project, norm1, up, down, norm2, *final) = mapped_type(x), layers
    project, up, down = ((weight.to(dtype), bias) for weight, bias in (project, up, down))
    save = torch.is_grad_enabled() or x.shape[-1] < 16  # of which tensor cores take no fewer
    vectors = *project, *norm1, *up, *down, *norm2, *(final[0] if final else (None, None))
    out, low, *_ = whole(x, attention.to(dtype), *vectors, keep, save)
    return out, low
