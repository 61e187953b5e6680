"""Updates by a step of ours beside those of PyTorch's own optimizers."""

import numpy as np
import torch

from grok_utils.engine.stack import Layout
from grok_utils.optimizers import OPTIMIZERS, hyper_table
from grok_utils.schedules import BLOCK
from grok_utils.studies import Shape
from grok_utils.tasks import make_task
from support.courses import varied

MEMBERS, BLOCKS, WARM_UP = 3, 5, 50
LAYOUT = Layout([make_task("x_plus_y", 0, 5)], Shape(8, 2, 3))


def polynomial(matrix):
    """Muon's direction for a matrix in float64: its polynomial, five times, of the singular values that numpy finds."""
    u, s, v = np.linalg.svd(matrix.numpy(), full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return torch.from_numpy(u * s @ v)


class NumpyMuon(torch.optim.Optimizer):
    """Muon by its definition (Jordan et al. 2024, with Nesterov's momentum), each matrix by `polynomial`."""

    def __init__(self, matrices):
        super().__init__(matrices, {})

    def step(self):
        (group,) = self.param_groups
        for p in group["params"]:
            mean = self.state[p].get("mean", 0) * group["momentum"] + (1 - group["momentum"]) * p.grad
            self.state[p]["mean"] = mean
            direction = polynomial((1 - group["momentum"]) * p.grad + group["momentum"] * mean)
            p.data *= 1 - group["lr"] * group["weight_decay"]
            p.data -= group["lr"] * 0.2 * max(p.shape) ** 0.5 * direction


def pieces(row, layout=LAYOUT):
    """The parameters of a member [P] one by one, in order, and which of them Muon orthogonalises.

    These are the blocks' matrices, those of queries, keys and values apart.
    """
    found = []
    for name, (parameter,) in layout.views(row[None]).items():
        parts = parameter.chunk(3) if name.endswith("in_proj_weight") else [parameter]
        found += [(part, name.startswith("blocks.") and part.ndim == 2) for part in parts]
    return found


# For each optimizer of ours, the one that moves the blocks' matrices, and the one that moves the rest.
ORACLES = {
    "adamw": (torch.optim.AdamW, torch.optim.AdamW),
    "sgd": (torch.optim.SGD, torch.optim.SGD),
    "muon": (NumpyMuon, torch.optim.AdamW),
}


def optimizers_of(of_matrices, of_rest, leaves):
    """Both, each with its own of `leaves`, which are as `pieces` gives them."""
    return [of([p for p, matrix in leaves if matrix == which]) for of, which in ((of_matrices, True), (of_rest, False))]


def step(optimizers, rate, decay, beta1, beta2):
    """A step of PyTorch's optimizers with these hyper-parameters."""
    for optimizer in optimizers:
        (group,) = optimizer.param_groups
        group |= {"lr": rate, "weight_decay": decay, "betas": (beta1, beta2), "momentum": beta1}
        if isinstance(optimizer, torch.optim.SGD):  # its own decay goes through the momentum
            group["weight_decay"] = 0
            for p in group["params"]:
                p.data *= 1 - rate * decay
        optimizer.step()


def trajectories(our_step, dtype, device="cpu", name="adamw"):
    """Parameters [50, M, P] after each update by `our_step`, and those of PyTorch's optimizers in float64."""
    generator = torch.Generator().manual_seed(0)
    courses, size = varied([1] * BLOCKS, MEMBERS), sum(LAYOUT.sizes)
    start = torch.randn(MEMBERS, size, generator=generator, dtype=torch.float64)
    gradients = torch.randn(BLOCKS * BLOCK, MEMBERS, size, generator=generator, dtype=torch.float64)
    parameters = start.to(device, dtype)
    state = {name: torch.zeros_like(parameters) for name in OPTIMIZERS[name].state}
    leaves = [[(p.clone().requires_grad_(), matrix) for p, matrix in pieces(row)] for row in start]
    others = [optimizers_of(*ORACLES[name], of) for of in leaves]
    own, expected = [], []
    for k, gradient in enumerate(gradients):
        block = k // BLOCK
        hyper = torch.from_numpy(hyper_table(courses, block, WARM_UP)[k % BLOCK])
        our_step(parameters, gradient.to(device, dtype), state, hyper)
        own.append(parameters.cpu().double().clone())
        for i, of in enumerate(leaves):
            for (leaf, _), (piece, _) in zip(of, pieces(gradient[i]), strict=True):
                leaf.grad = piece.clone()
            rate = courses.learning_rate[block, i] * min(k / WARM_UP, 1)
            step(others[i], rate, courses.weight_decay[block, i], courses.beta1[block, i], courses.beta2[block, i])
        expected.append(torch.stack([torch.cat([leaf.detach().flatten() for leaf, _ in of]) for of in leaves]))
    return torch.stack(own), torch.stack(expected)
