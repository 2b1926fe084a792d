"""Rotary position embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modgpt.pos.base import Position


class RotaryPosition(Position):
    """Rotates each pair (xᵢ, xᵢ₊D/2) of a query or key by the angle t·θ^(−2i/D).

    The product of a rotated query and a rotated key then depends on their distance only.
    Source: Su et al. 2021, "RoFormer", section 3.4.2. The paper pairs neighbours (x₂ᵢ, x₂ᵢ₊₁); pairing
    across the two halves, as GPT-NeoX and Llama do, is the same up to a permutation of the columns of
    the projections.

    Args:
        theta: base θ of the wavelengths; a larger one turns more slowly.

    Raises:
        ValueError: θ is not positive; at the first call, the head width is odd.
    """

    def __init__(self, *, theta: float = 10000.0, **sizes: Any) -> None:
        super().__init__(**sizes)
        if theta <= 0:
            raise ValueError(f"pos.theta must be positive, got {theta}")
        self.theta = theta
        self.latest: tuple[Tensor, Tensor, Tensor] | None = None

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        cos, sin = self.tables(positions, x.shape[-1])
        # (a, b) -> (a·cos − b·sin, b·cos + a·sin): the roll swaps the halves, sin carries the sign.
        swapped = x.roll(x.shape[-1] // 2, dims=-1)
        return torch.addcmul(x * cos, swapped, sin).type_as(x)

    def tables(self, positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """cos and ±sin of the angles at (T,) positions, (T,D) each, which all layers of a pass share."""
        if self.latest is not None:
            of, cos, sin = self.latest
            if of is positions and cos.shape[-1] == width:
                return cos, sin
        if width % 2:
            raise ValueError(f"pos=rope rotates pairs: the head width must be even, got {width}")
        pair = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)  # 2i
        # Angles in fp32 whatever the precision of x: in bf16 position 257 would already equal 256.
        angle = positions[:, None].float() * self.theta ** (-pair / width)  # (T, D/2)
        cos, sin = angle.cos(), angle.sin()
        cos, sin = torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)
        self.latest = positions, cos, sin
        return cos, sin
