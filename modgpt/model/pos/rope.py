"""Rotary position embedding."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt.model.pos.base import Position


class RotaryPosition(Position):
    """Rotates each pair (xᵢ, xᵢ₊D/2) of a query or key by the angle t·θ^(−2i/D).

    The product of a rotated query and a rotated key then depends on their distance only.
    Source: Su et al. 2021, "RoFormer", section 3.4.2. The paper pairs neighbours (x₂ᵢ, x₂ᵢ₊₁); pairing
    across the two halves, as GPT-NeoX and Llama do, is the same up to a permutation of the columns of
    the projections.

    Costs T·D² numbers of tables for a window of T.

    Args:
        theta: base θ of the wavelengths; a larger one turns more slowly.
        fraction: share of the head width that is rotated, its first columns, which then take the place
            of D above; the others carry no position (GPT-NeoX: a quarter is rotated).

    Raises:
        ValueError: θ is not positive, `fraction` not in (0, 1]; at the first call, the rotated width is
            odd or 0.
    """

    def __init__(self, *, theta: float = 10000.0, fraction: float = 1.0, **sizes: Any) -> None:
        super().__init__(**sizes)
        if theta <= 0:
            raise ValueError(f"pos.theta must be positive, got {theta}")
        if not 0 < fraction <= 1:
            raise ValueError(f"pos.fraction must lie in (0, 1], got {fraction}")
        self.theta, self.fraction = theta, fraction
        self.latest: tuple[Tensor, Tensor] | None = None

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        # One product with 2×2 blocks amid zeros. Elementwise it would be four loops over x, in fp32.
        batch, heads, length, width = x.shape
        if length == 1:  # a token being decoded: one product for all of its heads
            return x @ self.matrices(positions, width, x.dtype)[0]
        rows = x.permute(2, 0, 1, 3).reshape(length, batch * heads, width)  # (T,B·H,D)
        rotated = torch.bmm(rows, self.matrices(positions, width, x.dtype))
        return rotated.view(length, batch, heads, width).permute(1, 2, 0, 3)

    def matrices(self, positions: Tensor, width: int, dtype: torch.dtype) -> Tensor:
        """A rotation matrix (D,D) for each of (T,) positions, which all layers of a pass share."""
        if torch.compiler.is_compiling():  # compiled code that remembers is compiled for each memory
            return self.rotations(positions, width).to(dtype)
        if self.latest is not None:
            of, matrices = self.latest
            if of is positions and matrices.shape[-1] == width and matrices.dtype == dtype:
                return matrices
        matrices = self.rotations(positions, width).to(dtype)
        self.latest = positions, matrices
        return matrices

    def rotations(self, positions: Tensor, width: int) -> Tensor:
        """(T,) positions -> (T,D,D), the columns that are not rotated left as they are."""
        rotated = int(width * self.fraction)
        matrices = rotations(positions, rotated, self.theta)
        if rotated == width:
            return matrices
        others = torch.eye(width - rotated, device=positions.device).expand(len(positions), -1, -1)
        rows = F.pad(matrices, (0, width - rotated)), F.pad(others, (rotated, 0))
        return torch.cat(rows, dim=1)


def rotations(positions: Tensor, width: int, theta: float) -> Tensor:
    """(T,) positions -> (T,D,D); from the left they make (a·cos − b·sin, b·cos + a·sin) of (a, b).

    Raises:
        ValueError: the width D is odd or 0.
    """
    if width % 2 or not width:
        raise ValueError(f"pos=rope rotates pairs: the rotated head width must be even, got {width}")
    pair = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)  # 2i
    # Angles in fp32 whatever the precision of x: in bf16 position 257 would already equal 256.
    angle = positions[:, None].float() * theta ** (-pair / width)  # (T,D/2)
    cos, sin = angle.cos(), angle.sin()
    matrices = torch.diag_embed(torch.cat([cos, cos], dim=-1))
    matrices.diagonal(width // 2, -2, -1).copy_(sin)
    matrices.diagonal(-width // 2, -2, -1).copy_(-sin)
    return matrices
