"""Dynamic tanh: a bounded function of each element in place of a norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def dynamic_tanh(x: Tensor, *, alpha: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """weight ⊙ tanh(αx) + bias, α one number."""
    y = weight * torch.tanh(alpha * x)
    return y if bias is None else y + bias


class DynamicTanh(nn.Module):
    """y = γ ⊙ tanh(αx) + β, with one learned α: no statistic of the vector is taken.

    Large elements are squashed as a norm squashes them, small ones pass nearly linearly.

    Source: Zhu et al. 2025, "Transformers without Normalization", section 4. The paper starts α at 0.5,
    and with language models multiplies the embeddings by a learned number that starts at √C:
    `norm@model.embedding_norm=scalenorm` brings them to that size here.

    Args:
        width: size of the last dimension.
        alpha: the initial α.
        bias: add a learned β, as the paper does; without it β is 0.

    Raises:
        ValueError: α is not positive.

    Shapes: (..., width) -> (..., width).
    """

    definition = staticmethod(dynamic_tanh)
    variants = ({}, {"alpha": 2.0, "bias": True})

    def __init__(self, width: int, *, alpha: float = 0.5, bias: bool = False) -> None:
        super().__init__()
        if not alpha > 0:  # also NaN
            raise ValueError(f"norm.alpha must be positive, got {alpha}")
        self.alpha = nn.Parameter(torch.tensor(float(alpha)))
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.alpha * x) * self.weight
        return (y if self.bias is None else y + self.bias).type_as(x)
