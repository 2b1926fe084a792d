"""Layer norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def layer_norm(x: Tensor, *, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """weight ⊙ (x − mean) / √(variance + eps) + bias, over the last dimension of x."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    y = weight * centred / torch.sqrt(variance + eps)
    return y if bias is None else y + bias


class LayerNorm(nn.LayerNorm):
    """Layer normalisation: PyTorch's own, with its definition.

    Source: Ba et al. 2016, "Layer Normalization", section 3.
    """

    definition = staticmethod(layer_norm)
    variants = ({}, {"eps": 1.0}, {"bias": True})
