"""What the plain decoder reads, and what gradients say of their noise."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grok_utils.studies import Shape
from grok_utils.tasks import EQUALS, OPERATOR, SPECIAL_TOKENS

# Odd heads, heads of one number, one block, and blocks between the first and the last.
SHAPES = [Shape(8, 1, 1), Shape(96, 3, 1), Shape(64, 8, 2), Shape(60, 5, 3), Shape(24, 24, 3), Shape(256, 2, 4)]


def sequence(x: Tensor, y: Tensor) -> Tensor:
    """Tokens [B, 4] of the input `x ∘ y =` for elements `x`, `y` [B]."""
    special = torch.ones_like(x)
    return torch.stack([x + SPECIAL_TOKENS, special * OPERATOR, y + SPECIAL_TOKENS, special * EQUALS], dim=1)


def measured(model: nn.Module, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and accuracy of a plain model on pairs [n, 3]."""
    logits = model(sequence(pairs[:, 0], pairs[:, 1]))
    return F.cross_entropy(logits, pairs[:, 2]), (logits.argmax(-1) == pairs[:, 2]).double().mean()


def relative(a: Tensor, b: Tensor) -> Tensor:
    """How far `a` is from `b`, in norms of `b`."""
    return (a - b).norm() / b.norm()


def moved(decoder: nn.Module, seed: int) -> nn.Module:
    """The decoder with biases and gains away from 0 and 1, as training leaves them."""
    generator = torch.Generator().manual_seed(seed)
    for p in decoder.parameters():
        if p.ndim == 1:
            p.data += 0.3 * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
    return decoder


def noise_of(gradients: np.ndarray, batch_size: int) -> np.ndarray:
    """|G|^2 and tr Sigma [2, M] from the ten gradients [10, M, P] of a block, as McCandlish et al. write them."""
    small, big = (gradients**2).sum(-1).mean(0), (gradients.mean(0) ** 2).sum(-1)
    b, ten = batch_size, 10 * batch_size
    return np.stack([(ten * big - b * small) / (ten - b), (small - big) / (1 / b - 1 / ten)])
