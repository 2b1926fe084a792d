"""ScaleNorm: one learned length for every vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modgpt.model.precision import wide


def scale_norm(x: Tensor, *, g: Tensor, eps: float) -> Tensor:
    """g · x / √(‖x‖² + eps), ‖x‖ the length over the last dimension of x, g one number."""
    return g * x / torch.sqrt(x.square().sum(-1, keepdim=True) + eps)


class ScaleNorm(nn.Module):
    """y = g · x / √(‖x‖² + eps), with one scalar g for the whole norm.

    g starts at √width, which makes the norm start as RMSNorm does: every element has a mean square
    of 1. Started at 1 it would shrink each element by √width and silence the layer behind it.

    Source: Nguyen & Salazar 2019, "Transformers without Tears", section 2.3. The paper bounds ‖x‖ from
    below by eps; here eps stands inside the root, as in `torch.nn.RMSNorm`.

    Args:
        width: size of the last dimension.
        eps: added to the squared length.

    Shapes: (..., width) -> (..., width).
    """

    definition = staticmethod(scale_norm)
    variants = ({}, {"eps": 1.0})

    def __init__(self, width: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.g = nn.Parameter(torch.tensor(float(width)).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        # The sum of squares in fp32: in bf16 it would keep only 8 bits.
        inverse_length = torch.rsqrt(wide(x).square().sum(-1, keepdim=True) + self.eps)
        return (self.g * x * inverse_length).type_as(x)
