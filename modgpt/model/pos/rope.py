"""Rotary position embedding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from modgpt.kernels.rotation import RotationByProduct
from modgpt.model.pos.base import Position


def rotary(x: Tensor, t: int, *, theta: float, fraction: float) -> Tensor:
    """Turn each pair (xᵢ, xᵢ₊D/2) of a query or key at position t by the angle t·θ^(−2i/D): (D,)."""
    width = int(len(x) * fraction)  # D, the columns that are rotated
    a, b, others = x.split([width // 2, width // 2, len(x) - width])
    i = torch.arange(width // 2, dtype=torch.float64)
    angle = t * theta ** (-2 * i / width)
    cos, sin = angle.cos().type_as(x), angle.sin().type_as(x)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, others])


class RotaryPosition(Position):
    """Rotates each pair (xᵢ, xᵢ₊D/2) of a query or key by the angle t·θ^(−2i/D).

    The product of a rotated query and a rotated key then depends on their distance only.
    Source: Su et al. 2021, "RoFormer", section 3.4.2. The paper pairs neighbours (x₂ᵢ, x₂ᵢ₊₁); pairing
    across the two halves, as GPT-NeoX and Llama do, is the same up to a permutation of the columns of
    the projections. All vectors are rotated at once by `modgpt.kernels.rotation`.

    Args:
        theta: base θ of the wavelengths; a larger one turns more slowly.
        fraction: share of the head width that is rotated, its first columns, which then take the place
            of D above; the others carry no position (GPT-NeoX: a quarter is rotated).

    Raises:
        ValueError: θ is not positive, or `fraction` not in (0, 1].
    """

    rotate_definition = staticmethod(rotary)
    variants = ({}, {"theta": 100.0}, {"fraction": 0.5})

    def __init__(self, *, theta: float = 10000.0, fraction: float = 1.0, **sizes: Any) -> None:
        super().__init__(**sizes)
        if theta <= 0:
            raise ValueError(f"pos.theta must be positive, got {theta}")
        if not 0 < fraction <= 1:
            raise ValueError(f"pos.fraction must lie in (0, 1], got {fraction}")
        self.theta, self.fraction = theta, fraction
        self.rotation = RotationByProduct(theta=theta, fraction=fraction)

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        return self.rotation(x, positions)

    def unsupported(self, head_dim: int) -> str | None:
        width = int(head_dim * self.fraction)
        if width % 2 or not width:
            return (
                f"pos=rope rotates pairs: the rotated head width must be even, got {width} "
                f"(head_dim={head_dim}, pos.fraction={self.fraction})"
            )
        return None
