"""Triton kernels for the stack's attention on a GPU: rows gathered and mixed in one pass, forward and backward.

A query attends to at most four rows: those of x, of the operator, of y and of the equals sign, as far as its own
position reaches. What PyTorch compiles for this spends most of its time on indices of concatenated pieces. Going back,
one program goes through the examples of one element and sums the gradients of the rows that they share: no atomics, so
a rerun is bit-identical. Rows hold the heads side by side; softmax and sums are float32 whatever the rows are.

A tile is [R, HEADS, K, SIZE], K being 1 for queries and 4 for keys and values: on that axis Triton gives all four to
one thread, which mixes them without asking others. HEADS and SIZE are powers of 2: see `machine.has_kernels`.

PyTorch meets the kernels as operators of its own: of Triton code that it traces, it may assume that inputs are written.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from grok_utils.engine.gpu.launch import kernel
from grok_utils.engine.gpu.products import mapped_type

SPAN = tl.constexpr(512)  # examples that a program looks through at a time
ROWS = 4  # of a tile


@triton.jit
def numbers(row, HEADS: tl.constexpr, SIZE: tl.constexpr):
    """Where the numbers [R, HEADS, K, SIZE] of the rows are that begin at `row` [R, K]."""
    head, i = tl.arange(0, HEADS)[:, None, None], tl.arange(0, SIZE)
    return row[:, None, :, None] + head * SIZE + i


@triton.jit
def load(pointer, row, live, HEADS: tl.constexpr, SIZE: tl.constexpr):
    """Rows [R, HEADS, K, SIZE] that begin at `pointer` + `row` [R, K], as float32; zero where not `live`."""
    return tl.load(pointer + numbers(row, HEADS, SIZE), live[:, None, :, None], 0.0).to(tl.float32)


@triton.jit
def store(pointer, row, live, value):
    """Write rows [R, HEADS, K, SIZE] where `load` would read them."""
    tl.store(pointer + numbers(row, value.shape[1], value.shape[3]), value, live[:, None, :, None])


@triton.jit
def softmax(q, k, visible):
    """Weights [R, HEADS, 4] for queries [R, HEADS, 1, SIZE] of the four keys, where `visible` [R, 4]."""
    score = tl.where(visible[:, None, :], tl.sum(q * k, 3) * q.shape[3] ** -0.5, float("-inf"))
    e = tl.exp(score - tl.max(score, 2, keep_dims=True))
    return e / tl.sum(e, 2, keep_dims=True)


@triton.jit
def mix(w, v):
    """The four values [R, HEADS, 4, SIZE] mixed by their weights; also keys, by the gradients of their scores."""
    return tl.sum(w[:, :, :, None] * v, 2, keep_dims=True)


@triton.jit
def gradients(d_mixed, q, k, v, w):
    """Gradients of queries, keys and values from that of the mixed values [R, HEADS, 1, SIZE]."""
    d_w = tl.sum(d_mixed * v, 3)
    d_score = w * (d_w - tl.sum(w * d_w, 2, keep_dims=True)) * q.shape[3] ** -0.5
    return mix(d_score, k), d_score[:, :, :, None] * q, w[:, :, :, None] * d_mixed


@triton.jit
def place(position, element, example, n, B):
    """The row of a position among 2n + 2B: of the n elements at positions 0 and 1, of the B examples at 2 and 3."""
    return tl.where(position < 2, position * n + element, 2 * n + (position - 2) * B + example)


# --- block 1: rows of x, operator, y, equals; n elements, B examples ------------------------------------------------


@triton.jit
def token(position, ix, iy, n):
    """The row of a position's token among 2n + 2: the elements as x, the operator, the elements as y, equals."""
    return position // 2 * (n + 1) + tl.where(position % 2 == 1, n, tl.where(position == 0, ix, iy))


@triton.jit
def first_rows(qkv, position, ix, iy, live, n, HEADS: tl.constexpr, SIZE: tl.constexpr):
    """Query, keys, values and weights at `position` [R, 1] of examples of the elements `ix` and `iy`."""
    D: tl.constexpr = HEADS * SIZE
    key = tl.arange(0, 4)[None, :]
    at = token(key, ix, iy, n) * 3 * D
    q = load(qkv, token(position, ix, iy, n) * 3 * D, live, HEADS, SIZE)
    k, v = load(qkv + D, at, live, HEADS, SIZE), load(qkv + 2 * D, at, live, HEADS, SIZE)
    return q, k, v, softmax(q, k, key <= position)


@kernel("n", "B")
def first_forward(rows, qkv, x, y, residual, out, n, B, HEADS: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr):
    """A tile of rows of block 1: the embedded token, and what its position's attention mixes."""
    D: tl.constexpr = HEADS * SIZE
    member = tl.program_id(1).to(tl.int64)
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    live = r < 2 * n + 2 * B
    position = (r >= n).to(tl.int32) + (r >= 2 * n).to(tl.int32) + (r >= 2 * n + B).to(tl.int32)
    i = r - place(position, 0, 0, n, B)  # which element, or which example
    example = live & (position >= 2)
    ix = tl.where(example, tl.load(x + member * B + i, example, 0).to(tl.int32), i)
    iy = tl.load(y + member * B + i, example, 0).to(tl.int32)
    tokens, to = member * (2 * n + 2) * D, member * (2 * n + 2 * B) * D
    row = load(rows + tokens, token(position, ix, iy, n) * D, live, HEADS, SIZE)
    store(residual + to, r * D, live, row)
    _q, _k, v, w = first_rows(qkv + 3 * tokens, position, ix, iy, live, n, HEADS, SIZE)
    store(out + to, r * D, live, mix(w, v))


@triton.jit
def add_row(sums, qkv, d_residual, d_out, position, ix, iy, example, n, B):
    """`sums`, gradients of an example's tokens (query, key, value, row), with those from its row at `position`."""
    d_q, d_k, d_v, d_row = sums
    HEADS: tl.constexpr = d_q.shape[1]
    SIZE: tl.constexpr = d_q.shape[3]
    at, own = tl.full([1, 1], position, tl.int32), tl.arange(0, 4)[None, None, :, None] == position
    row, all_ = place(at, ix, example, n, B) * HEADS * SIZE, at >= 0
    q, k, v, w = first_rows(qkv, at, ix, iy, all_, n, HEADS, SIZE)
    of_q, of_k, of_v = gradients(load(d_out, row, all_, HEADS, SIZE), q, k, v, w)
    of_row = load(d_residual, row, all_, HEADS, SIZE)
    return d_q + tl.where(own, of_q, 0.0), d_k + of_k, d_v + of_v, d_row + tl.where(own, of_row, 0.0)


@kernel()
def first_elements(
    qkv, x, y, d_residual, d_out, d_rows, d_qkv, shared, n, B, HEADS: tl.constexpr, SIZE: tl.constexpr
):  # fmt: skip
    """Gradients from all examples of one element: its own as x and as y, and its part of the operator and equals."""
    D: tl.constexpr = HEADS * SIZE
    member, element, is_x = tl.program_id(2).to(tl.int64), tl.program_id(0), tl.program_id(1) == 0
    x, y, outputs = x + member * B, y + member * B, member * (2 * n + 2 * B) * D
    qkv, d_residual, d_out = qkv + member * (2 * n + 2) * 3 * D, d_residual + outputs, d_out + outputs
    zero = tl.zeros([1, HEADS, 4, SIZE], tl.float32)
    sums = (zero, zero, zero, zero)
    if is_x:  # all examples share the rows at positions 0 and 1
        for position in tl.static_range(0, 2):
            sums = add_row(sums, qkv, d_residual, d_out, position, element, 0, 0, n, B)
    for start in range(0, B, SPAN):
        some = start + tl.arange(0, SPAN)
        found = tl.where(tl.load(tl.where(is_x, x, y) + some, some < B, -1) == element, some, B)
        example = tl.min(found, 0)
        while example < B:
            ix, iy = tl.load(x + example).to(tl.int32), tl.load(y + example).to(tl.int32)
            for position in tl.static_range(2, 4):
                sums = add_row(sums, qkv, d_residual, d_out, position, ix, iy, example, n, B)
            example = tl.min(tl.where(found > example, found, B), 0)
    key = tl.arange(0, 4)[None, :]
    at, own = member * (2 * n + 2) + token(key, element, element, n), (key % 2 == 0) & ((key == 0) == is_x)
    part = ((member * n + element) * 2 + key // 2) * 4 * D
    store(d_rows, at * D, own, sums[3])
    for i in tl.static_range(0, 3):
        store(d_qkv + i * D, at * 3 * D, own, sums[i])
    for i in tl.static_range(0, 4):
        store(shared + i * D, part, (key % 2 == 1) & is_x, sums[i])


@kernel()
def sum_shared(shared, d_rows, d_qkv, n, D: tl.constexpr, COLUMNS: tl.constexpr):
    """Some COLUMNS of the gradients of the operator or the equals sign: `shared` [n, 2, 4D] summed over elements."""
    member, which, part = tl.program_id(2).to(tl.int64), tl.program_id(1), tl.program_id(0)
    column, total = part * COLUMNS + tl.arange(0, COLUMNS)[None, :], tl.zeros([16, COLUMNS], tl.float32)
    for start in range(0, n, 16):
        element = start + tl.arange(0, 16)[:, None]
        total += tl.load(shared + ((member * n + element) * 2 + which) * 4 * D + column, element < n, 0.0)
    value, at = tl.sum(total, 0, keep_dims=True), member * (2 * n + 2) + which * (n + 1) + n
    tl.store(d_qkv + at * 3 * D + column, value, column < 3 * D)
    tl.store(d_rows + at * D + column - 3 * D, value, column >= 3 * D)


@torch.library.custom_op("grok_utils::first_attention", mutates_args=())
def first(rows: Tensor, qkv: Tensor, x: Tensor, y: Tensor, heads: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Block 1's tokens and mixed values, the latter of `dtype`."""
    residual, out = first_shapes(rows, qkv, x, y, heads, dtype)
    tiles, n = triton.cdiv(out.shape[1], ROWS), rows.shape[1] // 2 - 1
    inputs = (t.contiguous() for t in (rows, qkv, x, y))
    shape = heads, rows.shape[2] // heads
    first_forward[(tiles, len(rows))](*inputs, residual, out, n, x.shape[1], *shape, ROWS)
    return residual, out


@first.register_fake
def first_shapes(
    rows: Tensor, qkv: Tensor, x: Tensor, y: Tensor, heads: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """What `first` fills."""
    shape = len(rows), rows.shape[1] - 2 + 2 * x.shape[1], rows.shape[2]
    return rows.new_empty(shape), rows.new_empty(shape, dtype=dtype)


@torch.library.custom_op("grok_utils::first_attention_backward", mutates_args=())
def first_backward(
    qkv: Tensor, x: Tensor, y: Tensor, d_residual: Tensor, d_out: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """Gradients of `first`'s rows and of their queries, keys and values."""
    d_rows, d_qkv = first_backward_shapes(qkv, x, y, d_residual, d_out, heads)
    members, tokens, width = d_rows.shape
    n, columns = tokens // 2 - 1, min(width, 64)
    shared = qkv.new_empty(members, n, 2, 4 * width, dtype=torch.float32)
    inputs = (t.contiguous() for t in (qkv, x, y, d_residual, d_out))
    shape = heads, width // heads
    first_elements[(n, 2, members)](*inputs, d_rows, d_qkv, shared, n, x.shape[1], *shape, num_warps=1)
    sum_shared[(4 * width // columns, 2, members)](shared, d_rows, d_qkv, n, width, columns)
    return d_rows, d_qkv


@first_backward.register_fake
def first_backward_shapes(
    qkv: Tensor, x: Tensor, y: Tensor, d_residual: Tensor, d_out: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    """What `first_backward` fills."""
    return d_residual.new_empty(*qkv.shape[:2], d_out.shape[2]), qkv.new_empty(qkv.shape)


def saved(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Keep what the gradients of either attention need: its tensors, and the number of heads."""
    ctx.save_for_backward(*inputs[:4])
    ctx.heads = inputs[4]


def first_gradients(ctx: Any, d_residual: Tensor, d_out: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of `first`'s arguments."""
    _, qkv, x, y = ctx.saved_tensors
    return *first_backward(qkv, x, y, d_residual, d_out, ctx.heads), None, None, None, None


first.register_autograd(first_gradients, setup_context=saved)


def first_attention(rows: Tensor, qkv: Tensor, x: Tensor, y: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """`stack.first_attention`, where every element has its rows; in bf16 the mixed values come as such."""
    return first(rows, qkv, x, y, heads, mapped_type(qkv))  # what the projection reads anyway


# --- last block: the last position's query sees x and the operator after it, y after both, and itself ---------------


@triton.jit
def last_rows(query, kv, bias, ix, b, live, n, B, HEADS: tl.constexpr, SIZE: tl.constexpr):
    """Query, keys, values and weights of examples `b` [R, 1] whose x is `ix`, and where in `kv` the keys are [R, 4]."""
    D: tl.constexpr = HEADS * SIZE
    at, zero = place(tl.arange(0, 4)[None, :], ix, b, n, B) * 2 * D, b * 0
    q = load(query, b * D, live, HEADS, SIZE) + load(bias, zero, live, HEADS, SIZE)
    k = load(kv, at, live, HEADS, SIZE) + load(bias + D, zero, live, HEADS, SIZE)
    v = load(kv + D, at, live, HEADS, SIZE) + load(bias + 2 * D, zero, live, HEADS, SIZE)
    return q, k, v, softmax(q, k, at >= 0), at


@kernel("n", "B")
def last_forward(query, kv, bias, x, out, n, B, stride, HEADS: tl.constexpr, SIZE: tl.constexpr, ROWS: tl.constexpr):
    """What the last position mixes, for a tile of examples."""
    D: tl.constexpr = HEADS * SIZE
    member = tl.program_id(1).to(tl.int64)
    b = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    live, examples = b < B, member * B * D
    ix = tl.load(x + member * B + b, live, 0).to(tl.int32)
    kv += member * (2 * n + 2 * B) * 2 * D
    _q, _k, v, w, _at = last_rows(query + examples, kv, bias + member * stride, ix, b, live, n, B, HEADS, SIZE)
    store(out + examples, b * D, live, mix(w, v))


@kernel()
def last_elements(
    query, kv, bias, x, d_out, d_query, d_kv, d_bias, n, B, stride, HEADS: tl.constexpr, SIZE: tl.constexpr
):  # fmt: skip
    """Gradients of queries and own rows of one element's examples, and summed, of the rows and the bias they share."""
    D: tl.constexpr = HEADS * SIZE
    member, element = tl.program_id(1).to(tl.int64), tl.program_id(0)
    examples, rows = member * B * D, member * (2 * n + 2 * B) * 2 * D
    query, d_out, d_query = query + examples, d_out + examples, d_query + examples
    kv, d_kv, bias, x = kv + rows, d_kv + rows, bias + member * stride, x + member * B
    key = tl.arange(0, 4)[None, :]
    d_k, d_v = tl.zeros([1, HEADS, 4, SIZE], tl.float32), tl.zeros([1, HEADS, 4, SIZE], tl.float32)
    d_q = tl.zeros([1, HEADS, 1, SIZE], tl.float32)
    for start in range(0, B, SPAN):
        some = start + tl.arange(0, SPAN)
        found = tl.where(tl.load(x + some, some < B, -1) == element, some, B)
        example = tl.min(found, 0)
        while example < B:
            b = tl.full([1, 1], example, tl.int32)
            q, k, v, w, at = last_rows(query, kv, bias, element, b, b < B, n, B, HEADS, SIZE)
            of_q, of_k, of_v = gradients(load(d_out, b * D, b < B, HEADS, SIZE), q, k, v, w)
            store(d_query, b * D, b < B, of_q)
            store(d_kv, at, key >= 2, of_k)
            store(d_kv + D, at, key >= 2, of_v)
            d_q += of_q
            d_k += of_k
            d_v += of_v
            example = tl.min(tl.where(found > example, found, B), 0)
    at = place(key, element, 0, n, B) * 2 * D
    store(d_kv, at, key < 2, d_k)
    store(d_kv + D, at, key < 2, d_v)
    one = tl.zeros([1, 1], tl.int32)
    d_bias += (member * n + element) * 3 * D
    store(d_bias, one, one == 0, d_q)
    store(d_bias + D, one, one == 0, tl.sum(d_k, 2, keep_dims=True))
    store(d_bias + 2 * D, one, one == 0, tl.sum(d_v, 2, keep_dims=True))


@torch.library.custom_op("grok_utils::last_attention", mutates_args=())
def last_attention(query: Tensor, kv: Tensor, bias: Tensor, x: Tensor, heads: int) -> Tensor:
    """`stack.last_attention`, where every element has its rows."""
    members, examples, width = query.shape
    out, n, shape = query.new_empty(query.shape), kv.shape[1] // 2 - examples, (heads, width // heads)
    inputs = query.contiguous(), kv.contiguous(), bias, x.contiguous()
    last_forward[(triton.cdiv(examples, ROWS), members)](*inputs, out, n, examples, bias.stride(0), *shape, ROWS)
    return out


last_attention.register_fake(lambda query, *_: query.new_empty(query.shape))


@torch.library.custom_op("grok_utils::last_attention_backward", mutates_args=())
def last_backward(
    query: Tensor, kv: Tensor, bias: Tensor, x: Tensor, d_out: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `last_attention`'s queries, of keys and values, and [M, n, 3D] to be summed of the bias."""
    d_query, d_kv, d_bias = last_backward_shapes(query, kv, bias, x, d_out, heads)
    inputs = query.contiguous(), kv.contiguous(), bias, x.contiguous(), d_out.contiguous()
    members, examples, width = query.shape
    n, shape = kv.shape[1] // 2 - examples, (heads, width // heads)
    sizes = n, examples, bias.stride(0), *shape
    last_elements[(n, members)](*inputs, d_query, d_kv, d_bias, *sizes, num_warps=1)
    return d_query, d_kv, d_bias


@last_backward.register_fake
def last_backward_shapes(
    query: Tensor, kv: Tensor, bias: Tensor, x: Tensor, d_out: Tensor, heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """What `last_backward` gives."""
    n = kv.shape[1] // 2 - query.shape[1]
    return query.new_empty(query.shape), kv.new_empty(kv.shape), bias.new_empty(len(kv), n, bias.shape[1])


def last_gradients(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients of `last_attention`'s arguments."""
    d_query, d_kv, d_bias = last_backward(*ctx.saved_tensors, d_out, ctx.heads)
    return d_query, d_kv, d_bias.sum(1), None, None


last_attention.register_autograd(last_gradients, setup_context=saved)
