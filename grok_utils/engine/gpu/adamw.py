"""AdamW on a GPU from the gradients of the decoder's parameters, wherever each lies.

AdamW waits for memory, and is a tenth of an update. Gradients copied into one tensor first would cost a fourth more.
"""

from itertools import accumulate

import triton
import triton.language as tl
from torch import Tensor

from grok_utils.engine.gpu.products import step_of
from grok_utils.optimizers import EPS, State

BLOCK = tl.constexpr(1024)  # parameters of a program


@triton.jit
def adamw(
    flat, first, second, parts, hyper, members, P, STARTS: tl.constexpr, STEP: tl.constexpr, EPS: tl.constexpr
):  # fmt: skip
    """BLOCK parameters of a member in place; those of `parts` begin at STARTS, and the last ends there.

    From one member's to the next's are P times STEP numbers, a power of 2: so much is known of alignment. `hyper`
    [K, M] are the rows of `optimizers.Hyper`.
    """
    member, begin = tl.program_id(1).to(tl.int64), tl.program_id(0) * BLOCK
    at = begin + tl.arange(0, BLOCK)
    gradient = tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(len(parts)):
        if (begin < STARTS[i + 1]) & (begin + BLOCK > STARTS[i]):
            own = parts[i] + member * (STARTS[i + 1] - STARTS[i]) + at - STARTS[i]
            gradient += tl.load(own, (at >= STARTS[i]) & (at < STARTS[i + 1]), 0.0)
    live, row, hyper = at < P * STEP, member * P * STEP + at, hyper + member
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


def step(flat: Tensor, gradients: tuple[Tensor, ...], state: State, hyper: Tensor) -> None:
    """`optimizers.adamw` in place, from the gradients of `Layout.views` of the parameters; `hyper` [K, M, 1]."""
    (members, count), step = flat.shape, step_of(flat.shape[1])
    inputs = flat, state["exp_avg"], state["exp_avg_sq"], tuple(gradient.contiguous() for gradient in gradients)
    starts = tuple(accumulate((gradient[0].numel() for gradient in gradients), initial=0))
    grid, sizes = (triton.cdiv(count, BLOCK.value), members), (members, count // step, starts, step, EPS)
    adamw[grid](*inputs, hyper.contiguous(), *sizes)
