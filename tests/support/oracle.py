"""Updates by a step of ours beside those of torch.optim.AdamW."""

import torch

from grok_utils.optimizers import OPTIMIZERS, hyper_table
from grok_utils.schedules import BLOCK
from support.courses import varied

MEMBERS, BLOCKS, SIZE = 3, 5, 137


def trajectories(step, dtype, device="cpu"):
    """Parameters [50, M, P] after each update by `step`, and those of one torch.optim.AdamW a member in float64."""
    generator = torch.Generator().manual_seed(0)
    courses = varied([1] * BLOCKS, MEMBERS)
    start = torch.randn(MEMBERS, SIZE, generator=generator, dtype=torch.float64)
    gradients = torch.randn(BLOCKS * BLOCK, MEMBERS, SIZE, generator=generator, dtype=torch.float64)
    parameters = start.to(device, dtype)
    state = {name: torch.zeros_like(parameters) for name in OPTIMIZERS["adamw"].state}
    leaves = [row.clone().requires_grad_() for row in start]
    adams = [torch.optim.AdamW([leaf], eps=1e-8) for leaf in leaves]
    own, expected = [], []
    for k, gradient in enumerate(gradients):
        block = k // BLOCK
        hyper = torch.from_numpy(hyper_table(courses, block)[k % BLOCK])
        step(parameters, gradient.to(device, dtype), state, hyper)
        own.append(parameters.cpu().double().clone())
        for i, (leaf, adam) in enumerate(zip(leaves, adams, strict=True)):
            betas = courses.beta1[block, i], courses.beta2[block, i]
            rate, decay = courses.learning_rate[block, i] * min(k / 50, 1), courses.weight_decay[block, i]
            adam.param_groups[0].update(lr=rate, weight_decay=decay, betas=betas)
            leaf.grad = gradient[i].clone()
            adam.step()
        expected.append(torch.stack([leaf.detach().clone() for leaf in leaves]))
    return torch.stack(own), torch.stack(expected)
