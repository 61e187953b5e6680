"""M decoders as one stack: what `model.Decoder` computes for each, with work left out that cannot change a number.

- Only the last position is read, so the last block computes queries, attention and FFN there alone.
- The mask is causal, so in every layer positions 0 and 1 depend on x alone: at most one row for each element, not one
  for each example. Rows are computed once for each element, then gathered (`distinct=True`).
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from grok_utils.model import Decoder
from grok_utils.studies import PROTOCOL, Shape
from grok_utils.tasks import EQUALS, OPERATOR, SPECIAL_TOKENS, Task

Elements = Int64[Tensor, "M B"]  # of each member's examples


class Layout:
    """Where each of the decoder's parameters lies in a member's row of a flat [M, P]; smaller tasks are padded.

    So is the row, to a multiple of `multiple` numbers.
    """

    def __init__(self, tasks: list[Task], shape: Shape = PROTOCOL.shape, multiple: int = 1) -> None:
        self.shape = shape
        with torch.random.fork_rng(devices=[]):  # shapes alone; without numbers ("meta") PyTorch loads its compiler
            largest = Decoder(max(t.vocabulary for t in tasks), max(t.elements for t in tasks), shape)
        self.shapes = {name: p.shape for name, p in largest.named_parameters()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.padding = -sum(self.sizes) % multiple

    def pack(self, decoders: Iterable[nn.Module]) -> Float[Tensor, "M P"]:
        """The parameters of M plain decoders as one tensor; rows that a smaller task lacks are zero."""
        of = [zip(decoder.parameters(), self.sizes, strict=True) for decoder in decoders]
        rows = [[F.pad(p.detach().flatten(), (0, size - p.numel())) for p, size in parameters] for parameters in of]
        return self.joined(torch.stack(of_members) for of_members in zip(*rows, strict=True))

    def views(self, flat: Float[Tensor, "M P"]) -> dict[str, Float[Tensor, "M ..."]]:
        """Views into `flat`, by the plain decoder's parameter names."""
        chunks = flat.split([*self.sizes, self.padding] if self.padding else self.sizes, dim=1)
        return {n: c.unflatten(1, shape) for (n, shape), c in zip(self.shapes.items(), chunks, strict=False)}

    def joined(self, views: Iterable[Float[Tensor, "M ..."]]) -> Float[Tensor, "M P"]:
        """Tensors such as `views` gives, in its order, as one."""
        return F.pad(torch.cat([view.flatten(1) for view in views], 1), (0, self.padding))


def linear(
    x: Float[Tensor, "M R I"],
    weight: Float[Tensor, "M O I"],
    bias: Float[Tensor, "M O"] | None,
    product: Callable[[Tensor, Tensor], Tensor] = torch.bmm,
) -> Float[Tensor, "M R O"]:
    """`x` through each member's own map."""
    y = product(x, weight.mT)
    return y if bias is None else y + bias.unsqueeze(1)


Linear = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def layer_norm(
    x: Float[Tensor, "M R D"], weight: Float[Tensor, "M D"], bias: Float[Tensor, "M D"]
) -> Float[Tensor, "M R D"]:
    """LayerNorm over the last axis of `x` with each member's own gain and offset."""
    return torch.addcmul(bias.unsqueeze(1), F.layer_norm(x, x.shape[-1:]), weight.unsqueeze(1))


def scaled_product(q: Float[Tensor, "M _ D"], k: Float[Tensor, "M _ D"], heads: int) -> Float[Tensor, "M _ {heads}"]:
    """Scaled dot product of each head."""
    q, k = (t.unflatten(-1, (heads, -1)) for t in (q, k))
    return (q * k).sum(-1) / math.sqrt(q.shape[-1])


def attend(scores: list[Float[Tensor, "M _ heads"]], values: list[Float[Tensor, "M _ D"]]) -> Float[Tensor, "M _ D"]:
    """Values mixed by the softmax over their scores."""
    weights = torch.stack(torch.broadcast_tensors(*scores), dim=-1).softmax(-1)
    first, *others = (value.unflatten(-1, (weights.shape[-2], -1)) for value in values)
    mixed = weights[..., 0, None] * first
    for j, value in enumerate(others, start=1):
        mixed = torch.addcmul(mixed, weights[..., j, None], value)
    return mixed.flatten(-2)


def layers_of(p: dict[str, Tensor], block: int) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of the layers that follow the heads in a block, as `rest_of_block` takes them."""
    layers = ("attention.out_proj", "norm1", "up", "down", "norm2")
    return [(p[f"blocks.{block}.{layer}.weight"], p[f"blocks.{block}.{layer}.bias"]) for layer in layers]


def rest_of_block(
    layers: list[tuple[Tensor, Tensor]],
    x: Float[Tensor, "M R D"],
    attention: Float[Tensor, "M R D"],
    keep: int,
    linear: Linear,
) -> tuple[Float[Tensor, "M {keep} D"], Float[Tensor, "M R D"]]:
    """What follows the heads in a block, by its `layers_of`: projection, residual, LayerNorm, FFN, LayerNorm.

    Comes out twice: the last `keep` rows, for the next residual, and all, for the next maps, which `layers` may end
    with a final LayerNorm for.
    """
    project, norm1, up, down, norm2, *final = layers
    a = layer_norm(x + linear(attention, *project), *norm1)
    h = F.gelu(linear(a, *up))
    out = layer_norm(a + linear(h, *down), *norm2)
    return out[:, out.shape[1] - keep :], layer_norm(out, *final[0]) if final else out


class GatherRows(torch.autograd.Function):
    """Rows [M, R, C] gathered by `index` [M, B], its gradient a product with one-hot rows.

    A scatter-add would sum in an order that changes from run to run on a GPU; a matrix product does not.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.count = rows.shape[1]
        return rows.gather(1, index.unsqueeze(-1).expand(-1, -1, rows.shape[2]))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (index,) = ctx.saved_tensors
        one_hot = index.unsqueeze(-2) == torch.arange(ctx.count, device=index.device).unsqueeze(-1)  # [M, R, B]
        return one_hot.to(gradient.dtype).bmm(gradient), None


def take(rows: Float[Tensor, "M R C"], index: Elements | None) -> Float[Tensor, "M _ C"]:
    """Rows gathered by `index`; None means one row for each example already."""
    if index is None:
        return rows
    if rows.is_cuda:
        return GatherRows.apply(rows, index)
    members, n, width = rows.shape
    offset = torch.arange(members).unsqueeze(1) * n
    return F.embedding(index + offset, rows.reshape(members * n, width))


def first_attention(
    rows: Float[Tensor, "M T D"], qkv: Float[Tensor, "M T 3*D"], x: Elements | None, y: Elements | None, heads: int
) -> tuple[Float[Tensor, "M R D"], Float[Tensor, "M R D"]]:
    """What block 1 adds up at positions 0 to 3, the token and the mixed values, in R = 2n + 2B rows.

    The T = 2n + 2 `rows` and their `qkv` are of x, the operator, y and the equals sign; the first two
    positions have a row for each of the n elements, the others one for each example.
    """
    n, width = rows.shape[1] // 2 - 1, rows.shape[2]
    (_, k0, v0), (q1, k1, v1), (q2, k2, v2), (q3, k3, v3) = (r.chunk(3, -1) for r in qkv.split([n, 1, n, 1], 1))
    score = partial(scaled_product, heads=heads)
    at1 = attend([score(q1, k0), score(q1, k1)], [v0, v1])
    s30, k0, v0_ = take(torch.cat([score(q3, k0), k0, v0], -1), x).split([heads, width, width], -1)
    from_y = torch.cat([score(q2, k1), score(q2, k2), score(q3, k2), q2, v2, rows[:, n + 1 : 2 * n + 1]], -1)
    s21, s22, s32, q2, v2, r2 = take(from_y, y).split([heads] * 3 + [width] * 3, -1)
    at2 = attend([score(q2, k0), s21, s22], [v0_, v1, v2])
    at3 = attend([s30, score(q3, k1), s32, score(q3, k3)], [v0_, v1, v2, v3])
    r0, r1, r3 = rows[:, :n], rows[:, n, None].expand(-1, n, -1), rows[:, -1, None].expand_as(r2)
    return torch.cat([r0, r1, r2, r3], 1), torch.cat([v0, at1, at2, at3], 1)


def middle_attention(
    qkv: Float[Tensor, "M R C"], batch: int, x: Int64[Tensor, "M {batch}"] | None, heads: int
) -> Float[Tensor, "M R C//3"]:
    """What a block between the first and the last mixes, from the `qkv` of all R = 2n + 2B rows."""
    n = qkv.shape[1] // 2 - batch
    (_, k0, v0), (q1, k1, v1), (q2, k2, v2), (q3, k3, v3) = (r.chunk(3, -1) for r in qkv.split([n, n, batch, batch], 1))
    score = partial(scaled_product, heads=heads)
    at1 = attend([score(q1, k0), score(q1, k1)], [v0, v1])
    k0, k1, v0_, v1_ = take(torch.cat([k0, k1, v0, v1], -1), x).chunk(4, -1)
    at2 = attend([score(q2, k) for k in (k0, k1, k2)], [v0_, v1_, v2])
    at3 = attend([score(q3, k) for k in (k0, k1, k2, k3)], [v0_, v1_, v2, v3])
    return torch.cat([v0, at1, at2, at3], 1)


def last_attention(
    query: Float[Tensor, "M B D"],
    kv: Float[Tensor, "M R 2*D"],
    bias: Float[Tensor, "M 3*D"],
    x: Elements | None,
    heads: int,
) -> Float[Tensor, "M B D"]:
    """What the last of several blocks mixes at the last position.

    Its `query` and the `kv` of all R = 2n + 2B rows still lack the `bias` of query, key and value.
    """
    _, batch, width = query.shape
    n = kv.shape[1] // 2 - batch
    query = query + bias[:, None, :width]
    kv0, kv1, kv2, kv3 = (kv + bias[:, None, width:]).split([n, n, batch, batch], 1)
    k0, v0, k1, v1 = take(torch.cat([kv0, kv1], -1), x).chunk(4, -1)
    (k2, v2), (k3, v3) = kv2.chunk(2, -1), kv3.chunk(2, -1)
    return attend([scaled_product(query, k, heads) for k in (k0, k1, k2, k3)], [v0, v1, v2, v3])


def measured(
    products: Float[Tensor, "M B C"],
    offset: Float[Tensor, "M 1 C"],
    label: Int64[Tensor, "M B"],
    weight: Float[Tensor, "..."],
) -> Float[Tensor, "M 2"]:
    """Cross-entropy and correctness of the logits `products` + `offset`, summed by `weight`, which broadcasts to them.

    The offset is -inf for the classes that a member's task does not have.
    """
    logits = products.float() + offset
    loss = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none").view_as(label)
    correct = (logits.argmax(-1) == label).float()
    return torch.stack([(loss * weight).sum(1), (correct * weight).sum(1)], dim=1)


class Kernels(NamedTuple):
    """What a machine may have faster ways for.

    Attention of the first and the last block, linear maps, the rest of a block, and loss and accuracy.
    """

    first: Callable[..., tuple[Tensor, Tensor]] = first_attention
    last: Callable[..., Tensor] = last_attention
    linear: Linear = linear
    rest_of_block: Callable[..., tuple[Tensor, Tensor]] = rest_of_block
    measured: Callable[..., Tensor] = measured


PLAIN = Kernels()


def stacked_logits(
    layout: Layout, flat: Float[Tensor, "M P"], x: Elements, y: Elements, distinct: bool, kernels: Kernels = PLAIN
) -> Float[Tensor, "M B classes"]:
    """Logits of M members with parameters `flat` for elements `x`, `y`; `distinct`, `kernels`: see `stacked_rows`."""
    p = layout.views(flat)
    rows = stacked_rows(layout.shape, p, x, y, distinct, kernels)
    return kernels.linear(rows, p["head.weight"], p["head.bias"])


def stacked_rows(
    shape: Shape, p: dict[str, Tensor], x: Elements, y: Elements, distinct: bool, kernels: Kernels
) -> Float[Tensor, "M B D"]:
    """What the head reads of elements `x`, `y`: the last position's rows, by parameters `p` of the decoder's names.

    With `distinct`, whatever depends on x alone or y alone is computed once for each element and gathered; otherwise
    once for each example. The numbers are the same to rounding, whatever the `kernels`: those of attention may need
    rows for each element, and are left out without.
    """
    batch, (width, heads, blocks) = x.shape[1], shape
    embedding, position = p["tokens.weight"], p["positions.weight"]
    elements = embedding[:, SPECIAL_TOKENS:]
    ex, ey = (elements, elements) if distinct else (take(elements, x), take(elements, y))
    of_x, of_y = (x, y) if distinct else (None, None)
    if not distinct:
        kernels = kernels._replace(first=first_attention, last=last_attention)
    linear = kernels.linear

    # Block 1. Queries, keys and values are functions of (token, position): x, operator, y, equals at positions 0 to 3.
    tokens = (ex, embedding[:, OPERATOR, None], ey, embedding[:, EQUALS, None])
    rows = torch.cat([token + position[:, i, None] for i, token in enumerate(tokens)], dim=1)
    w, b = p["blocks.0.attention.in_proj_weight"], p["blocks.0.attention.in_proj_bias"]
    residual, mixed = kernels.first(rows, linear(rows, w, b), of_x, of_y, heads)
    for i in range(1, blocks):
        last = i == blocks - 1  # read at the last position only
        keep, layers = batch if last else residual.shape[1], layers_of(p, i - 1)
        residual, rows = kernels.rest_of_block(layers, residual, mixed, keep, linear)
        w, b = p[f"blocks.{i}.attention.in_proj_weight"], p[f"blocks.{i}.attention.in_proj_bias"]
        if last:
            read = residual if residual.dtype == rows.dtype else rows[:, -batch:]  # the same: gradients without padding
            query, kv = linear(read, w[:, :width], None), linear(rows, w[:, width:], None)
            mixed = kernels.last(query, kv, b, of_x, heads)
        else:
            mixed = middle_attention(linear(rows, w, b), batch, of_x, heads)
    residual, mixed = residual[:, -batch:], mixed[:, -batch:]
    layers = [*layers_of(p, blocks - 1), (p["norm.weight"], p["norm.bias"])]
    return kernels.rest_of_block(layers, residual, mixed, 0, linear)[1]
