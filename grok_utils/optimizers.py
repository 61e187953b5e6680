"""What an update does to the parameters: pure rules over members `[M, P]`, each with hyper-parameters of its own.

An optimizer of your own is one function and its entry in OPTIMIZERS; its name is then a setting of any study.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from grok_utils.schedules import BLOCK
from grok_utils.studies import HYPER, Courses

EPS = 1e-8  # of AdamW
OfMembers = Float[Tensor, "M P"]
State = dict[str, OfMembers]
Moved = tuple[OfMembers, State]  # by an update


class Hyper(NamedTuple):
    """The hyper-parameters of one update, each [M, 1]."""

    step: Tensor  # the number of the update, from 1
    rate: Tensor  # the warm-up is in it
    decay: Tensor
    beta1: Tensor
    beta2: Tensor
    correction1: Tensor  # 1 - beta1 ** step, which makes up for a moment's start at zero
    correction2: Tensor


class Optimizer(NamedTuple):
    """A rule, `(parameters, gradient, state, hyper, layout) -> parameters, state`, and the names of its state.

    All tensors are [M, P], the state zero at the start; `layout.views` gives the decoder's parameters in them, and
    `layout.joined` makes one tensor of such.
    """

    rule: Callable[[Tensor, Tensor, State, Hyper, Any], Moved]
    state: tuple[str, ...]
    cpu: Callable[[Tensor, Tensor, State, Tensor], None] | None = None  # the same in float32 and in place, but faster


def adamw(parameters: OfMembers, gradient: OfMembers, state: State, hyper: Hyper, layout: Any) -> Moved:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) as torch.optim.AdamW computes it."""
    first = hyper.beta1 * state["exp_avg"] + (1 - hyper.beta1) * gradient
    second = hyper.beta2 * state["exp_avg_sq"] + (1 - hyper.beta2) * gradient.square()
    scale = (second / hyper.correction2).sqrt() + EPS
    moved = parameters * (1 - hyper.rate * hyper.decay) - hyper.rate * (first / hyper.correction1) / scale
    return moved, {"exp_avg": first, "exp_avg_sq": second}


def fused_adamw(parameters: OfMembers, gradient: OfMembers, state: State, hyper: Float[Tensor, "K M 1"]) -> None:
    """AdamW in place by PyTorch's fused kernel for CPUs, member by member; `hyper` are the rows of `Hyper`.

    Each member on its own, so that it has its own rates, and its bits do not depend on where its row lies.
    """
    step = hyper[0, 0, 0].float()
    rows = parameters, gradient, state["exp_avg"], state["exp_avg_sq"], hyper.squeeze(-1).T.tolist()
    for p, g, first, second, (_, rate, decay, beta1, beta2, *_) in zip(*rows, strict=True):
        options = {"lr": rate, "beta1": beta1, "beta2": beta2, "weight_decay": decay, "eps": EPS}
        torch._fused_adamw_([p], [g], [first], [second], [], [step], **options, amsgrad=False, maximize=False)


def sgd(parameters: OfMembers, gradient: OfMembers, state: State, hyper: Hyper, layout: Any) -> Moved:
    """SGD with momentum `beta1` as torch.optim.SGD computes it, but for the decay, which is decoupled as AdamW's."""
    momentum = hyper.beta1 * state["momentum_buffer"] + gradient
    return parameters * (1 - hyper.rate * hyper.decay) - hyper.rate * momentum, {"momentum_buffer": momentum}


def muon(parameters: OfMembers, gradient: OfMembers, state: State, hyper: Hyper, layout: Any) -> Moved:
    """Muon (Jordan et al. 2024) for the blocks' matrices, AdamW for the rest; `beta1` is the momentum of either.

    As torch.optim.Muon with Nesterov's momentum, which is AdamW's first moment before its correction, and with
    `match_rms_adamw` (Liu et al. 2025, arXiv 2502.16982), which scales an update to the usual size of AdamW's.
    """
    moved, new = adamw(parameters, gradient, state, hyper, layout)
    parts, start = layout.views(moved), block_matrices(layout.views(parameters))
    steps = block_matrices(layout.views(torch.lerp(gradient, new["exp_avg"], hyper.beta1)))
    rate, decay = hyper.rate[..., None, None], hyper.decay[..., None, None]
    for long in {matrix.shape[-1] for matrix in steps.values()}:  # equal shapes at once: few products, and large ones
        alike = {name: matrix for name, matrix in steps.items() if matrix.shape[-1] == long}
        split = orthogonalised(torch.cat([*alike.values()], 1)).split([m.shape[1] for m in alike.values()], 1)
        for name, direction in zip(alike, split, strict=True):
            matrix = start[name] * (1 - rate * decay) - rate * 0.2 * long**0.5 * direction
            parts[name] = matrix.mT if parts[name].shape[-1] < long else matrix
    return layout.joined(parts.values()), new


def block_matrices(views: dict[str, Float[Tensor, "M ..."]]) -> dict[str, Float[Tensor, "M _ _ _"]]:
    """The blocks' matrices by name, lying: [M, K, short, long], K being 3 for query, key and value packed in one."""
    of = {name: view for name, view in views.items() if name.startswith("blocks.") and view.dim() == 3}
    parts = {name: view.unflatten(1, (3 if "in_proj" in name else 1, -1)) for name, view in of.items()}
    return {name: part.mT if part.shape[-2] > part.shape[-1] else part for name, part in parts.items()}


def orthogonalised(matrices: Float[Tensor, "*of short long"]) -> Float[Tensor, "*of short long"]:
    """Lying matrices with singular values brought near 1, by five steps of Muon's polynomial."""
    x = matrices / torch.linalg.vector_norm(matrices, dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


OPTIMIZERS = {
    "adamw": Optimizer(adamw, ("exp_avg", "exp_avg_sq"), fused_adamw),
    "sgd": Optimizer(sgd, ("momentum_buffer",)),
    "muon": Optimizer(muon, ("exp_avg", "exp_avg_sq")),
}


def hyper_table(courses: Courses, block: int, warm_up: int) -> Float64[np.ndarray, "10 K M 1"]:
    """The rows of `Hyper` for the ten updates of `block`, with a linear `warm_up` in updates."""
    k = np.arange(block * BLOCK, (block + 1) * BLOCK)[:, None]  # updates done before
    shape = BLOCK, courses.batch_size.shape[1]
    rate, decay, beta1, beta2 = (np.broadcast_to(getattr(courses, name)[block], shape) for name in HYPER[1:])
    step, warm = np.broadcast_to(k + 1.0, shape), np.minimum(k / warm_up, 1) if warm_up else 1
    rows = (step, rate * warm, decay, beta1, beta2, 1 - beta1**step, 1 - beta2**step)
    return np.stack(rows, axis=1)[..., None]
