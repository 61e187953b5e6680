"""A CPU's matrix products in float32 by oneDNN, of one member at a time.

PyTorch gives a CPU's float32 products to MKL, which leaves AVX-512 idle on CPUs that are not Intel's: there oneDNN is
twice as fast. PyTorch meets it as an operator of its own: what it calls itself may be called with constant weights
alone, and has no gradient.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

torch.library.define(
    "grok_utils::product",
    "(Tensor rows, Tensor weight, Tensor? bias) -> Tensor",
    tags=(torch.Tag.needs_exact_strides, torch.Tag.pt2_compliant_tag),
)


def product(
    rows: Float[Tensor, "R I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None
) -> Float[Tensor, "R O"]:
    """`rows` · `weight`ᵀ + `bias`."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")


torch.library.impl("grok_utils::product", "CPU", product)


@torch.library.register_fake("grok_utils::product")
def product_shape(
    rows: Float[Tensor, "R I"], weight: Float[Tensor, "O I"], bias: Float[Tensor, " O"] | None
) -> Float[Tensor, "R O"]:
    """What `product` fills."""
    return rows.new_empty(rows.shape[0], weight.shape[0])


def saved(
    ctx: Any,
    inputs: tuple[Float[Tensor, "R I"], Float[Tensor, "O I"], Float[Tensor, " O"] | None],
    output: Float[Tensor, "R O"],
) -> None:
    """Keep what `gradients` needs."""
    rows, weight, bias = inputs
    ctx.save_for_backward(rows, weight)
    ctx.has_bias = bias is not None


def gradients(
    ctx: Any, d_out: Float[Tensor, "R O"]
) -> tuple[Float[Tensor, "R I"], Float[Tensor, "O I"], Float[Tensor, " O"] | None]:
    """Gradients of `product`'s arguments. oneDNN copies rows that do not lie one after another: here the narrower."""
    rows, weight = ctx.saved_tensors
    of = torch.ops.grok_utils.product
    narrow = rows.shape[1] < d_out.shape[1]
    d_weight = of(rows.t(), d_out.t(), None).t() if narrow else of(d_out.t(), rows.t(), None)
    return of(d_out, weight.t(), None), d_weight, d_out.sum(0) if ctx.has_bias else None


torch.library.register_autograd("grok_utils::product", gradients, setup_context=saved)


def linear(
    x: Float[Tensor, "1 R I"], weight: Float[Tensor, "1 O I"], bias: Float[Tensor, "1 O"] | None
) -> Float[Tensor, "1 R O"]:
    """`stack.linear` of a stack of one member in float32."""
    of_bias = None if bias is None else bias[0]
    return torch.ops.grok_utils.product(x[0], weight[0], of_bias).unsqueeze(0)
