"""The decoder as the study describes it, of PyTorch's own layers: it gives the initial weights, and tests its stack."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from grok_utils.studies import PROTOCOL, Shape
from grok_utils.tasks import Task, key

POSITIONS = 5


class Block(nn.Module):
    """Post-norm decoder block: `a = LN(x + attention(x))`, then `LN(a + FFN(a))`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm1 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        a = self.norm1(x + self.attention(x, x, x, attn_mask=mask, need_weights=False)[0])
        return self.norm2(a + self.down(F.gelu(self.up(a))))


class Decoder(nn.Module):
    """The study's model for one task: the tokens of `x ∘ y =` to logits at the last position."""

    def __init__(self, vocabulary: int, classes: int, shape: Shape = PROTOCOL.shape) -> None:
        super().__init__()
        width, heads, blocks = shape
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(POSITIONS, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Int[Tensor, "B S"]) -> Float[Tensor, "B classes"]:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -1]))


def initial_decoder(task: Task, shape: Shape = PROTOCOL.shape) -> Decoder:
    """PyTorch's default initialisation, drawn on the CPU from a generator keyed by (operation, seed)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key("weights", task.operation, task.seed) % 2**63)
        return Decoder(task.vocabulary, task.elements, shape)
