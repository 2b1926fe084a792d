"""Fixed sinusoids added to the embeddings."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from modgpt.model.pos.base import Position
from modgpt.model.precision import wide_dtype


def sinusoidal(x: Tensor, t: int, *, scale: float) -> Tensor:
    """x + s·PE(t) for one embedding x (C,): PE(t)₂ᵢ = sin(t/10000^(2i/C)), PE(t)₂ᵢ₊₁ = cos(…)."""
    encoding = []
    for column in range(len(x)):
        angle = t / 10000 ** ((column - column % 2) / len(x))
        encoding.append(math.cos(angle) if column % 2 else math.sin(angle))
    return x + scale * torch.tensor(encoding, dtype=x.dtype)


class SinusoidalPosition(Position):
    """x + s · PE(t), with PE(t)₂ᵢ = sin(t / 10000^(2i/C)) and PE(t)₂ᵢ₊₁ = cos(t / 10000^(2i/C)).

    Source: Vaswani et al. 2017, "Attention Is All You Need", section 3.5. The paper multiplies the
    embeddings by √C instead; here they start with standard deviation 0.02 and the encoding, whose root
    mean square is 1/√2, is scaled down to them, for otherwise it would drown them.

    Args:
        scale: s; None for `init_std`·√2, which gives encoding and embeddings the same size.
    """

    embed_definition = staticmethod(sinusoidal)
    variants = ({}, {"scale": 0.5})
    relative = False

    def __init__(self, *, scale: float | None = None, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.scale = sizes["init_std"] * math.sqrt(2) if scale is None else scale

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        width = x.shape[-1]
        dtype = wide_dtype(x.dtype)  # in bf16 position 257 would already equal 256
        even = torch.arange(0, width, 2, device=x.device, dtype=dtype)  # 2i
        angle = positions[:, None].to(dtype) * 10000.0 ** (-even / width)  # (T, ⌈C/2⌉)
        encoding = torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)  # interleaved
        return x + (self.scale * encoding[:, :width]).type_as(x)  # an odd width drops the last cosine
