"""What an update does to the parameters: pure rules over members `[M, P]`, each with hyper-parameters of its own.

An optimizer of your own is one function and its entry in OPTIMIZERS; its name is then a setting of any study.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from grok_utils.schedules import BLOCK
from grok_utils.studies import Courses

WARM_UP = 50  # updates
EPS = 1e-8
State = dict[str, Tensor]


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

    All tensors are [M, P], the state zero at the start; `layout.views` gives the decoder's parameters in them.
    """

    rule: Callable[[Tensor, Tensor, State, Hyper, Any], tuple[Tensor, State]]
    state: tuple[str, ...]


def adamw(parameters: Tensor, gradient: Tensor, state: State, hyper: Hyper, layout: Any) -> tuple[Tensor, State]:
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) as torch.optim.AdamW computes it."""
    first = hyper.beta1 * state["exp_avg"] + (1 - hyper.beta1) * gradient
    second = hyper.beta2 * state["exp_avg_sq"] + (1 - hyper.beta2) * gradient.square()
    scale = (second / hyper.correction2).sqrt() + EPS
    moved = parameters * (1 - hyper.rate * hyper.decay) - hyper.rate * (first / hyper.correction1) / scale
    return moved, {"exp_avg": first, "exp_avg_sq": second}


OPTIMIZERS = {"adamw": Optimizer(adamw, ("exp_avg", "exp_avg_sq"))}


def hyper_table(courses: Courses, block: int) -> np.ndarray:
    """The rows of `Hyper` for the ten updates of `block`, with the linear warm-up: float64 [10, K, M, 1]."""
    k = np.arange(block * BLOCK, (block + 1) * BLOCK)[:, None]  # updates done before
    rate, decay, beta1, beta2 = (
        np.broadcast_to(course[block], (BLOCK, course.shape[1]))
        for course in (courses.learning_rate, courses.weight_decay, courses.beta1, courses.beta2)
    )
    step = np.broadcast_to(k + 1.0, rate.shape)
    rows = (step, rate * np.minimum(k / WARM_UP, 1), decay, beta1, beta2, 1 - beta1**step, 1 - beta2**step)
    return np.stack(rows, axis=1)[..., None]
