"""Triton kernels for the stack's attention on a GPU: rows gathered and mixed in one pass, forward and backward.

A query attends to at most four rows: those of x, of the operator, of y and of the equals sign, as far as its own
position reaches. What PyTorch compiles for this spends most of its time on indices of concatenated pieces. The gradient
of a row that several examples share is summed example after example by one program: no atomics, so a rerun is
bit-identical. Rows hold the heads side by side; softmax and sums are float32 whatever the rows are.

PyTorch meets the kernels as operators of its own: of Triton code that it traces, it may assume that inputs are written.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from grok_utils import model

D, HEADS, SIZE = map(tl.constexpr, (model.WIDTH, model.HEADS, model.WIDTH // model.HEADS))
SCALE = tl.constexpr((model.WIDTH // model.HEADS) ** -0.5)
SPAN = tl.constexpr(512)  # examples that a program looks through at a time
ROWS, STRIP = 8, 64  # of a tile, and of several that one program sums


@triton.jit
def load(pointer, row, live):
    """Rows of float32 numbers [R, HEADS, SIZE] at `pointer` + `row` [R]; zero where not `live`."""
    head, i = tl.arange(0, HEADS), tl.arange(0, SIZE)
    at = row[:, None, None] + head[None, :, None] * SIZE + i[None, None, :]
    return tl.load(pointer + at, live[:, None, None], 0.0).to(tl.float32)


@triton.jit
def store(pointer, row, live, value):
    """Write rows [R, HEADS, SIZE] where `load` would read them."""
    head, i = tl.arange(0, HEADS), tl.arange(0, SIZE)
    at = row[:, None, None] + head[None, :, None] * SIZE + i[None, None, :]
    tl.store(pointer + at, value, live[:, None, None])


@triton.jit
def softmax(q, k0, k1, k2, k3, position):
    """Weights [R, HEADS] of the four keys for queries at `position` [R], which see no key beyond it."""
    none = float("-inf")
    p = position[:, None]
    s0 = tl.sum(q * k0, 2) * SCALE
    s1 = tl.where(p >= 1, tl.sum(q * k1, 2) * SCALE, none)
    s2 = tl.where(p >= 2, tl.sum(q * k2, 2) * SCALE, none)
    s3 = tl.where(p >= 3, tl.sum(q * k3, 2) * SCALE, none)
    top = tl.maximum(tl.maximum(s0, s1), tl.maximum(s2, s3))
    e0, e1, e2, e3 = tl.exp(s0 - top), tl.exp(s1 - top), tl.exp(s2 - top), tl.exp(s3 - top)
    total = e0 + e1 + e2 + e3
    return e0 / total, e1 / total, e2 / total, e3 / total


@triton.jit
def mix(w0, w1, w2, w3, v0, v1, v2, v3):
    """Values mixed by their weights [R, HEADS]; also keys by the gradients of their scores."""
    return w0[:, :, None] * v0 + w1[:, :, None] * v1 + w2[:, :, None] * v2 + w3[:, :, None] * v3


@triton.jit
def d_scores(gradient, w0, w1, w2, w3, v0, v1, v2, v3):
    """Gradients of the four scores [R, HEADS], scale included, from that of the mixed values."""
    g0, g1 = tl.sum(gradient * v0, 2), tl.sum(gradient * v1, 2)
    g2, g3 = tl.sum(gradient * v2, 2), tl.sum(gradient * v3, 2)
    mean = w0 * g0 + w1 * g1 + w2 * g2 + w3 * g3
    return w0 * (g0 - mean) * SCALE, w1 * (g1 - mean) * SCALE, w2 * (g2 - mean) * SCALE, w3 * (g3 - mean) * SCALE


# --- block 1: rows of x, operator, y, equals; n elements, B examples ------------------------------------------------


@triton.jit
def places(r, x, y, n, B, member):
    """Position and elements x and y of the rows `r` of block 1: x, operator after x, y and equals in each example."""
    position = (r >= n).to(tl.int32) + (r >= 2 * n).to(tl.int32) + (r >= 2 * n + B).to(tl.int32)
    b = r - 2 * n - tl.where(position == 3, B, 0)
    example = (position >= 2) & (b < B)
    of_x = tl.load(x + member * B + b, example, 0).to(tl.int32)
    of_y = tl.load(y + member * B + b, example, 0).to(tl.int32)
    return position, tl.where(position == 0, r, tl.where(position == 1, r - n, of_x)), of_y


@triton.jit
def first_forward(rows, qkv, x, y, residual, out, n, B, ROWS: tl.constexpr):
    """A tile of rows of block 1: the embedded token, and what its position's attention mixes."""
    member = tl.program_id(1).to(tl.int64)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = r < 2 * n + 2 * B
    p, ix, iy = places(r, x, y, n, B, member)
    own = tl.where(p == 0, ix, tl.where(p == 1, n, tl.where(p == 2, n + 1 + iy, 2 * n + 1)))
    store(residual + member * (2 * n + 2 * B) * D, r * D, live, load(rows + member * (2 * n + 2) * D, own * D, live))
    q, k = qkv + member * (2 * n + 2) * 3 * D, qkv + member * (2 * n + 2) * 3 * D + D
    r0, r1, r2, r3 = ix * 3 * D, (ix * 0 + n) * 3 * D, (n + 1 + iy) * 3 * D, (ix * 0 + 2 * n + 1) * 3 * D
    k0, k1, k2, k3 = load(k, r0, live), load(k, r1, live), load(k, r2, live), load(k, r3, live)
    w0, w1, w2, w3 = softmax(load(q, own * 3 * D, live), k0, k1, k2, k3, p)
    v = k + D
    mixed = mix(w0, w1, w2, w3, load(v, r0, live), load(v, r1, live), load(v, r2, live), load(v, r3, live))
    store(out + member * (2 * n + 2 * B) * D, r * D, live, mixed)


@triton.jit
def first_constants(qkv, x, y, d_residual, d_out, parts, n, B, strips, ROWS: tl.constexpr, STRIP: tl.constexpr):
    """A strip's part of the gradients of the operator's and the equals sign's rows: query, key, value, token."""
    member, strip = tl.program_id(1).to(tl.int64), tl.program_id(0)
    q, outputs = qkv + member * (2 * n + 2) * 3 * D, member * (2 * n + 2 * B) * D
    k, v = q + D, q + 2 * D
    operator_q, operator_k = tl.zeros([HEADS, SIZE], tl.float32), tl.zeros([HEADS, SIZE], tl.float32)
    operator_v, operator_row = tl.zeros([HEADS, SIZE], tl.float32), tl.zeros([HEADS, SIZE], tl.float32)
    equals_q, equals_k = tl.zeros([HEADS, SIZE], tl.float32), tl.zeros([HEADS, SIZE], tl.float32)
    equals_v, equals_row = tl.zeros([HEADS, SIZE], tl.float32), tl.zeros([HEADS, SIZE], tl.float32)
    for start in range(0, STRIP, ROWS):
        r = n + strip * STRIP + start + tl.arange(0, ROWS)
        live = r < 2 * n + 2 * B
        p, ix, iy = places(r, x, y, n, B, member)
        own = tl.where(p == 1, n, tl.where(p == 2, n + 1 + iy, 2 * n + 1))
        r0, r1, r2, r3 = ix * 3 * D, (ix * 0 + n) * 3 * D, (n + 1 + iy) * 3 * D, (ix * 0 + 2 * n + 1) * 3 * D
        query = load(q, own * 3 * D, live)
        k0, k1, k2, k3 = load(k, r0, live), load(k, r1, live), load(k, r2, live), load(k, r3, live)
        w0, w1, w2, w3 = softmax(query, k0, k1, k2, k3, p)
        gradient = load(d_out + outputs, r * D, live)  # zero where not live, and so is all that follows
        g0, g1, g2, g3 = d_scores(
            gradient, w0, w1, w2, w3, load(v, r0, live), load(v, r1, live), load(v, r2, live), load(v, r3, live)
        )
        d_query, token = mix(g0, g1, g2, g3, k0, k1, k2, k3), load(d_residual + outputs, r * D, live)
        operator, equals = (p == 1)[:, None, None], (p == 3)[:, None, None]
        operator_q += tl.sum(tl.where(operator, d_query, 0.0), 0)
        operator_k += tl.sum(g1[:, :, None] * query, 0)
        operator_v += tl.sum(w1[:, :, None] * gradient, 0)
        operator_row += tl.sum(tl.where(operator, token, 0.0), 0)
        equals_q += tl.sum(tl.where(equals, d_query, 0.0), 0)
        equals_k += tl.sum(g3[:, :, None] * query, 0)
        equals_v += tl.sum(w3[:, :, None] * gradient, 0)
        equals_row += tl.sum(tl.where(equals, token, 0.0), 0)
    head, i = tl.arange(0, HEADS), tl.arange(0, SIZE)
    to = parts + (member * strips + strip) * 8 * D + head[:, None] * SIZE + i[None, :]
    tl.store(to, operator_q)
    tl.store(to + D, operator_k)
    tl.store(to + 2 * D, operator_v)
    tl.store(to + 3 * D, operator_row)
    tl.store(to + 4 * D, equals_q)
    tl.store(to + 5 * D, equals_k)
    tl.store(to + 6 * D, equals_v)
    tl.store(to + 7 * D, equals_row)


@triton.jit
def first_elements(qkv, x, y, d_residual, d_out, parts, d_rows, d_qkv, n, B, strips):
    """The gradient of one row of block 1's input: an element as x or as y, the operator, or the equals sign."""
    member, row = tl.program_id(1).to(tl.int64), tl.program_id(0)
    zero, all_ = tl.zeros([1], tl.int32), tl.zeros([1], tl.int32) == 0
    q, k = qkv + member * (2 * n + 2) * 3 * D, qkv + member * (2 * n + 2) * 3 * D + D
    v, outputs = k + D, member * (2 * n + 2 * B) * D
    d_q, d_k = tl.zeros([1, HEADS, SIZE], tl.float32), tl.zeros([1, HEADS, SIZE], tl.float32)
    d_v, d_row = tl.zeros([1, HEADS, SIZE], tl.float32), tl.zeros([1, HEADS, SIZE], tl.float32)
    operator, equals = zero + n * 3 * D, zero + (2 * n + 1) * 3 * D
    if (row == n) | (row == 2 * n + 1):
        part = parts + member * strips * 8 * D + tl.where(row == n, 0, 4 * D)
        for _ in range(0, strips):
            d_q += load(part, zero, all_)
            d_k += load(part, zero + D, all_)
            d_v += load(part, zero + 2 * D, all_)
            d_row += load(part, zero + 3 * D, all_)
            part += 8 * D
    else:
        is_x = row < n
        element = tl.where(is_x, row, row - n - 1)
        q3, k1, k3 = load(q, equals, all_), load(k, operator, all_), load(k, equals, all_)
        v1, v3 = load(v, operator, all_), load(v, equals, all_)
        own, others = tl.where(is_x, x, y) + member * B, tl.where(is_x, y, x) + member * B
        own_k, own_v = load(k, zero + row * 3 * D, all_), load(v, zero + row * 3 * D, all_)
        own_q = load(q, zero + row * 3 * D, all_)
        if is_x:  # as x at position 0, and as what the operator sees at position 1
            d_v += load(d_out + outputs, zero + row * D, all_)
            d_row += load(d_residual + outputs, zero + row * D, all_)
            q1, gradient = load(q, operator, all_), load(d_out + outputs, zero + (n + row) * D, all_)
            w0, w1, w2, w3 = softmax(q1, own_k, k1, k1, k1, zero + 1)
            g0, g1, g2, g3 = d_scores(gradient, w0, w1, w2, w3, own_v, v1, v1, v1)
            d_k += g0[:, :, None] * q1
            d_v += w0[:, :, None] * gradient
        for start in range(0, B, SPAN):
            b = start + tl.arange(0, SPAN)
            found = tl.where(tl.load(own + b, b < B, -1) == element, b, B)
            found_at = tl.min(found, 0)
            while found_at < B:
                other = tl.load(others + found_at).to(tl.int32)
                there = zero + (other + tl.where(is_x, n + 1, 0)) * 3 * D
                other_k, other_v = load(k, there, all_), load(v, there, all_)
                k0, k2 = tl.where(is_x, own_k, other_k), tl.where(is_x, other_k, own_k)
                v0, v2 = tl.where(is_x, own_v, other_v), tl.where(is_x, other_v, own_v)
                q2 = tl.where(is_x, load(q, there, all_), own_q)
                gradient = load(d_out + outputs, zero + (2 * n + found_at) * D, all_)
                w0, w1, w2, w3 = softmax(q2, k0, k1, k2, k3, zero + 2)
                g0, g1, g2, g3 = d_scores(gradient, w0, w1, w2, w3, v0, v1, v2, v3)
                d_k += tl.where(is_x, g0, g2)[:, :, None] * q2
                d_v += tl.where(is_x, w0, w2)[:, :, None] * gradient
                d_q += tl.where(is_x, 0.0, mix(g0, g1, g2, g3, k0, k1, k2, k3))
                d_row += tl.where(is_x, 0.0, load(d_residual + outputs, zero + (2 * n + found_at) * D, all_))
                gradient = load(d_out + outputs, zero + (2 * n + B + found_at) * D, all_)
                w0, w1, w2, w3 = softmax(q3, k0, k1, k2, k3, zero + 3)
                g0, g1, g2, g3 = d_scores(gradient, w0, w1, w2, w3, v0, v1, v2, v3)
                d_k += tl.where(is_x, g0, g2)[:, :, None] * q3
                d_v += tl.where(is_x, w0, w2)[:, :, None] * gradient
                found = tl.where(found == found_at, B, found)
                found_at = tl.min(found, 0)
    to = d_qkv + member * (2 * n + 2) * 3 * D
    store(to, zero + row * 3 * D, all_, d_q)
    store(to, zero + row * 3 * D + D, all_, d_k)
    store(to, zero + row * 3 * D + 2 * D, all_, d_v)
    store(d_rows + member * (2 * n + 2) * D, zero + row * D, all_, d_row)


@torch.library.custom_op("grok_utils::first_attention", mutates_args=())
def first(rows: Tensor, qkv: Tensor, x: Tensor, y: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Block 1's tokens and mixed values, the latter of `dtype`."""
    residual, out = first_shapes(rows, qkv, x, y, dtype)
    tiles, n = -(-out.shape[1] // ROWS), rows.shape[1] // 2 - 1
    inputs = (t.contiguous() for t in (rows, qkv, x, y))
    first_forward[(tiles, len(rows))](*inputs, residual, out, n, x.shape[1], ROWS=ROWS)
    return residual, out


@first.register_fake
def first_shapes(rows: Tensor, qkv: Tensor, x: Tensor, y: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What `first` fills."""
    members, n, examples = len(rows), rows.shape[1] // 2 - 1, x.shape[1]
    shape = members, 2 * n + 2 * examples, rows.shape[2]
    return rows.new_empty(shape), rows.new_empty(shape, dtype=dtype)


@torch.library.custom_op("grok_utils::first_attention_backward", mutates_args=())
def first_backward(qkv: Tensor, x: Tensor, y: Tensor, d_residual: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `first`'s rows and of their queries, keys and values."""
    d_rows, d_qkv = first_backward_shapes(qkv, x, y, d_residual, d_out)
    members, n, examples = len(qkv), qkv.shape[1] // 2 - 1, x.shape[1]
    strips = -(-(n + 2 * examples) // STRIP)
    parts = d_residual.new_empty(members, strips, 8, d_residual.shape[2], dtype=torch.float32)
    inputs = [t.contiguous() for t in (qkv, x, y, d_residual, d_out)]
    first_constants[(strips, members)](*inputs, parts, n, examples, strips, ROWS=ROWS, STRIP=STRIP)
    first_elements[(2 * n + 2, members)](*inputs, parts, d_rows, d_qkv, n, examples, strips, num_warps=1)
    return d_rows, d_qkv


@first_backward.register_fake
def first_backward_shapes(
    qkv: Tensor, x: Tensor, y: Tensor, d_residual: Tensor, d_out: Tensor
) -> tuple[Tensor, Tensor]:
    """What `first_backward` fills."""
    return d_residual.new_empty(*qkv.shape[:2], d_residual.shape[2]), qkv.new_empty(qkv.shape)


def first_gradients(ctx: Any, d_residual: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
    """Gradients of `first`'s arguments."""
    return *first_backward(*ctx.saved_tensors, d_residual, d_out), None, None, None


first.register_autograd(first_gradients, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[1:4]))


def first_attention(rows: Tensor, qkv: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """`model.first_attention`, where every element has its rows; in bf16 the mixed values come as such."""
    dtype = torch.bfloat16 if torch.is_autocast_enabled("cuda") else qkv.dtype  # what the projection reads anyway
    return first(rows, qkv, x, y, dtype)


# --- block 2: the last position's query sees x and the operator after it, y after both, and itself ------------------


@triton.jit
def last_rows(query, kv, bias, x, n, B, b, live, member, stride):
    """Queries, keys and values [R, HEADS, SIZE] of examples `b` [R], and where in `kv` their own two rows are."""
    zero = b * 0
    ix = tl.load(x + member * B + b, live, 0).to(tl.int32)
    r2, r3 = (2 * n + b) * 2 * D, (2 * n + B + b) * 2 * D
    q, k, v = bias + member * stride, kv + member * (2 * n + 2 * B) * 2 * D, kv + member * (2 * n + 2 * B) * 2 * D + D
    bias_k, bias_v = load(q + D, zero, live), load(q + 2 * D, zero, live)
    query = load(query + member * B * D, b * D, live) + load(q, zero, live)
    k0, k1 = load(k, ix * 2 * D, live) + bias_k, load(k, (n + ix) * 2 * D, live) + bias_k
    v0, v1 = load(v, ix * 2 * D, live) + bias_v, load(v, (n + ix) * 2 * D, live) + bias_v
    k2, k3 = load(k, r2, live) + bias_k, load(k, r3, live) + bias_k
    return query, k0, k1, k2, k3, v0, v1, load(v, r2, live) + bias_v, load(v, r3, live) + bias_v, r2, r3


@triton.jit
def last_forward(query, kv, bias, x, out, n, B, stride, ROWS: tl.constexpr):
    """What the last position mixes, for a tile of examples."""
    member = tl.program_id(1).to(tl.int64)
    b = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = b < B
    q, k0, k1, k2, k3, v0, v1, v2, v3, _r2, _r3 = last_rows(query, kv, bias, x, n, B, b, live, member, stride)
    w0, w1, w2, w3 = softmax(q, k0, k1, k2, k3, b * 0 + 3)
    store(out + member * B * D, b * D, live, mix(w0, w1, w2, w3, v0, v1, v2, v3))


@triton.jit
def last_examples(query, kv, bias, x, d_out, d_query, d_kv, n, B, stride, ROWS: tl.constexpr):
    """Gradients of the queries and of the two rows that each example has of its own, for a tile of examples."""
    member = tl.program_id(1).to(tl.int64)
    b = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live, to = b < B, d_kv + member * (2 * n + 2 * B) * 2 * D
    q, k0, k1, k2, k3, v0, v1, v2, v3, r2, r3 = last_rows(query, kv, bias, x, n, B, b, live, member, stride)
    w0, w1, w2, w3 = softmax(q, k0, k1, k2, k3, b * 0 + 3)
    gradient = load(d_out + member * B * D, b * D, live)
    g0, g1, g2, g3 = d_scores(gradient, w0, w1, w2, w3, v0, v1, v2, v3)
    store(d_query + member * B * D, b * D, live, mix(g0, g1, g2, g3, k0, k1, k2, k3))
    store(to, r2, live, g2[:, :, None] * q)
    store(to, r2 + D, live, w2[:, :, None] * gradient)
    store(to, r3, live, g3[:, :, None] * q)
    store(to, r3 + D, live, w3[:, :, None] * gradient)


@triton.jit
def last_elements(query, kv, bias, x, d_out, d_kv, n, B, stride):
    """Gradients of one element's two rows, as x and as the operator after it, summed over the examples that have it."""
    member, element = tl.program_id(1).to(tl.int64), tl.program_id(0)
    zero, all_ = tl.zeros([1], tl.int32), tl.zeros([1], tl.int32) == 0
    d_k0, d_k1 = tl.zeros([1, HEADS, SIZE], tl.float32), tl.zeros([1, HEADS, SIZE], tl.float32)
    d_v0, d_v1 = tl.zeros([1, HEADS, SIZE], tl.float32), tl.zeros([1, HEADS, SIZE], tl.float32)
    for start in range(0, B, SPAN):
        b = start + tl.arange(0, SPAN)
        found = tl.where(tl.load(x + member * B + b, b < B, -1) == element, b, B)
        found_at = tl.min(found, 0)
        while found_at < B:
            q, k0, k1, k2, k3, v0, v1, v2, v3, _r2, _r3 = last_rows(
                query, kv, bias, x, n, B, zero + found_at, all_, member, stride
            )
            w0, w1, w2, w3 = softmax(q, k0, k1, k2, k3, zero + 3)
            gradient = load(d_out + member * B * D, zero + found_at * D, all_)
            g0, g1, _g2, _g3 = d_scores(gradient, w0, w1, w2, w3, v0, v1, v2, v3)
            d_k0 += g0[:, :, None] * q
            d_k1 += g1[:, :, None] * q
            d_v0 += w0[:, :, None] * gradient
            d_v1 += w1[:, :, None] * gradient
            found = tl.where(found == found_at, B, found)
            found_at = tl.min(found, 0)
    to = d_kv + member * (2 * n + 2 * B) * 2 * D
    store(to, zero + element * 2 * D, all_, d_k0)
    store(to, zero + element * 2 * D + D, all_, d_v0)
    store(to, zero + (n + element) * 2 * D, all_, d_k1)
    store(to, zero + (n + element) * 2 * D + D, all_, d_v1)


@torch.library.custom_op("grok_utils::last_attention", mutates_args=())
def last_attention(query: Tensor, kv: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """`model.last_attention`, where every element has its rows."""
    members, examples, _ = query.shape
    out, n = query.new_empty(query.shape), kv.shape[1] // 2 - examples
    inputs = query.contiguous(), kv.contiguous(), bias, x.contiguous()
    last_forward[(-(-examples // ROWS), members)](*inputs, out, n, examples, bias.stride(0), ROWS=ROWS)
    return out


@last_attention.register_fake
def last_shape(query: Tensor, kv: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """What `last_attention` fills."""
    return query.new_empty(query.shape)


@torch.library.custom_op("grok_utils::last_attention_backward", mutates_args=())
def last_backward(query: Tensor, kv: Tensor, bias: Tensor, x: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of `last_attention`'s queries, keys and values."""
    members, examples, _ = query.shape
    d_query, d_kv = last_backward_shapes(query, kv, bias, x, d_out)
    inputs = query.contiguous(), kv.contiguous(), bias, x.contiguous(), d_out.contiguous()
    n, stride = kv.shape[1] // 2 - examples, bias.stride(0)
    last_examples[(-(-examples // ROWS), members)](*inputs, d_query, d_kv, n, examples, stride, ROWS=ROWS)
    last_elements[(n, members)](*inputs, d_kv, n, examples, stride, num_warps=1)
    return d_query, d_kv


@last_backward.register_fake
def last_backward_shapes(query: Tensor, kv: Tensor, bias: Tensor, x: Tensor, d_out: Tensor) -> tuple[Tensor, Tensor]:
    """What `last_backward` fills."""
    return query.new_empty(query.shape), kv.new_empty(kv.shape)


def last_gradients(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    """Gradients of `last_attention`'s arguments."""
    d_query, d_kv = last_backward(*ctx.saved_tensors, d_out)
    d_bias = torch.cat([d_query.sum(1, dtype=torch.float32), d_kv.sum(1, dtype=torch.float32)], -1)
    return d_query, d_kv, d_bias, None


last_attention.register_autograd(
    last_gradients, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs)
)
