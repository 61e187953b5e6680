"""What the plain decoder reads."""

import torch
from torch import Tensor

from grok_utils.tasks import EQUALS, OPERATOR, SPECIAL_TOKENS


def sequence(x: Tensor, y: Tensor) -> Tensor:
    """Tokens [B, 4] of the input `x ∘ y =` for elements `x`, `y` [B]."""
    special = torch.ones_like(x)
    return torch.stack([x + SPECIAL_TOKENS, special * OPERATOR, y + SPECIAL_TOKENS, special * EQUALS], dim=1)
