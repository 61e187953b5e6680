"""AdamW on a GPU from the gradients of the decoder's parameters, wherever each lies.

AdamW waits for memory, and is a tenth of an update. Gradients copied into one tensor first would cost a fourth more,
and weights copied to bf16 afterwards as much again.
"""

from itertools import accumulate

import triton
import triton.language as tl
from torch import Tensor

from grok_utils.engine.gpu.launch import kernel, strides_of
from grok_utils.optimizers import EPS, State

BLOCK = tl.constexpr(1024)  # parameters of a program


@kernel()
def adamw(
    flat, first, second, low, parts, hyper, members, P, STARTS: tl.constexpr, ROWS: tl.constexpr, EPS: tl.constexpr
):  # fmt: skip
    """BLOCK parameters of a member in place, and as `low` unless that is None.

    The parameters of `parts` begin at STARTS, and the last ends there; from one member's to the next's are ROWS numbers
    in each of them. `hyper` [K, M] are the rows of `optimizers.Hyper`.
    """
    member, begin = tl.program_id(1).to(tl.int64), tl.program_id(0) * BLOCK
    at = begin + tl.arange(0, BLOCK)
    gradient = tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(len(parts)):
        if (begin < STARTS[i + 1]) & (begin + BLOCK > STARTS[i]):
            own = parts[i] + member * ROWS[i] + at - STARTS[i]
            gradient += tl.load(own, (at >= STARTS[i]) & (at < STARTS[i + 1]), 0.0).to(tl.float32)
    live, row, hyper = at < P, member * P + at, hyper + member
    rate, decay = tl.load(hyper + members), tl.load(hyper + 2 * members)
    beta1, beta2 = tl.load(hyper + 3 * members), tl.load(hyper + 4 * members)
    correction1, correction2 = tl.load(hyper + 5 * members), tl.load(hyper + 6 * members)
    m = beta1 * tl.load(first + row, live) + (1 - beta1) * gradient
    v = beta2 * tl.load(second + row, live) + (1 - beta2) * gradient * gradient
    moved = tl.load(flat + row, live) * (1 - rate * decay)
    moved -= rate * (m / correction1) / (tl.sqrt_rn(v / correction2) + EPS)
    tl.store(first + row, m, live)
    tl.store(second + row, v, live)
    tl.store(flat + row, moved, live)
    if low is not None:
        tl.store(low + row, moved, live)


def step(flat: Tensor, low: Tensor | None, gradients: tuple[Tensor, ...], state: State, hyper: Tensor) -> None:
    """`optimizers.adamw` in place, from the gradients of `Layout.views` of the parameters; `hyper` [K, M, 1].

    `low` [M, P], in a lower precision, gets the new parameters too.
    """
    members, count = flat.shape
    parts = tuple(part if part[0].is_contiguous() else part.contiguous() for part in gradients)
    starts = tuple(accumulate((part[0].numel() for part in parts), initial=0))
    inputs = flat, state["exp_avg"], state["exp_avg_sq"], low, parts, hyper.contiguous()
    grid = triton.cdiv(count, BLOCK.value), members
    adamw[grid](*inputs, members, count, starts, strides_of(*parts), EPS)
