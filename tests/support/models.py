"""What the plain decoder reads."""

import torch
from torch import Tensor

from grok_utils.studies import Shape
from grok_utils.tasks import EQUALS, OPERATOR, SPECIAL_TOKENS

# Odd heads, heads of one number, one block, and blocks between the first and the last.
SHAPES = [Shape(8, 1, 1), Shape(96, 3, 1), Shape(64, 8, 2), Shape(60, 5, 3), Shape(24, 24, 3), Shape(256, 2, 4)]


def sequence(x: Tensor, y: Tensor) -> Tensor:
    """Tokens [B, 4] of the input `x ∘ y =` for elements `x`, `y` [B]."""
    special = torch.ones_like(x)
    return torch.stack([x + SPECIAL_TOKENS, special * OPERATOR, y + SPECIAL_TOKENS, special * EQUALS], dim=1)
