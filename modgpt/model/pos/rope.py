"""Rotary position embedding."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from modgpt.kernels.rotation import RotationByProduct
from modgpt.model.pos.base import Position


def frequencies(
    i: Tensor, width: int, *, theta: float, scaling: str | None, factor: float, trained: int
) -> Tensor:
    """The angle ωᵢ per position of each pair i of D = `width` columns: θ^(−2i/D), or slower.

    linear: ωᵢ/s, as if positions were s times closer (Chen et al. 2023, "Position Interpolation").
    yarn: pairs that turn more than 32 times within the trained length L stay, those that turn less than
    once are divided by s, and those between are blended, linearly in i (Peng et al. 2023, "YaRN",
    section 3.2, with the ramp of its code).
    """
    omega = theta ** (-2 * i / width)
    if scaling is None:
        return omega
    if scaling == "linear":
        return omega / factor

    def pair_of(turns: float) -> float:
        """The pair, as a real number, that turns so often within L."""
        return width * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first, last = max(0, math.floor(pair_of(32))), min(width - 1, math.ceil(pair_of(1)))
    slowed = ((i - first) / max(last - first, 1e-3)).clamp(0, 1)
    return slowed * omega / factor + (1 - slowed) * omega


def rotary(
    x: Tensor,
    t: int,
    *,
    theta: float,
    fraction: float,
    interleaved: bool,
    scaling: str | None,
    factor: float,
    trained: int,
    stretch: float,
) -> Tensor:
    """Turn each pair (xᵢ, xᵢ₊D/2) of a query or key at position t by the angle t·ωᵢ: (D,)."""
    width = int(len(x) * fraction)  # D, the columns that are rotated
    rotated, others = x.split([width, len(x) - width])
    a, b = (rotated[0::2], rotated[1::2]) if interleaved else rotated.chunk(2)
    i = torch.arange(width // 2, dtype=torch.float64)
    angle = t * frequencies(i, width, theta=theta, scaling=scaling, factor=factor, trained=trained)
    cos, sin = (stretch * angle.cos()).type_as(x), (stretch * angle.sin()).type_as(x)
    pairs = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=int(interleaved))
    return torch.cat([pairs.flatten(), others])


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
        interleaved: pair neighbours, as the paper and GPT-J do.
        scaling: slow the rotation down for texts longer than the trained ones (`frequencies`): linear or
            yarn; None for no scaling. YaRN also stretches queries and keys by 0.1·ln s + 1.
        factor: s, how many times longer.
        trained: the trained length L, of yarn; None for block_size.

    Raises:
        ValueError: θ is not positive (yarn: above 1), `fraction` not in (0, 1], `scaling` none of these,
            `factor` below 1 or without a scaling, or `trained` given without yarn.
    """

    rotate_definition = staticmethod(rotary)
    variants = (
        {},
        {"theta": 100.0},
        {"fraction": 0.5},
        {"interleaved": True},
        {"scaling": "linear", "factor": 4.0},
        {"scaling": "yarn", "factor": 4.0, "trained": 64},
    )

    def __init__(
        self,
        *,
        theta: float = 10000.0,
        fraction: float = 1.0,
        interleaved: bool = False,
        scaling: Literal["linear", "yarn"] | None = None,
        factor: float = 1.0,
        trained: int | None = None,
        **sizes: Any,
    ) -> None:
        super().__init__(**sizes)
        if theta <= 0:
            raise ValueError(f"pos.theta must be positive, got {theta}")
        if not 0 < fraction <= 1:
            raise ValueError(f"pos.fraction must lie in (0, 1], got {fraction}")
        if scaling not in (None, "linear", "yarn"):
            raise ValueError(f"pos.scaling must be linear, yarn or null, got {scaling!r}")
        if not factor >= 1 or (scaling is None and factor != 1):
            raise ValueError(
                f"pos.factor={factor} must be at least 1, and needs pos.scaling=linear or yarn above 1"
            )
        if trained is not None and (scaling != "yarn" or trained < 1):
            raise ValueError(f"pos.trained={trained} is a length for pos.scaling=yarn; leave it null")
        if scaling == "yarn" and theta <= 1:
            raise ValueError(f"pos.scaling=yarn needs pos.theta above 1, got {theta}")
        self.theta, self.fraction, self.interleaved = theta, fraction, interleaved
        self.scaling, self.factor = scaling, factor
        self.trained: int = sizes["block_size"] if trained is None else trained
        self.stretch = 0.1 * math.log(factor) + 1 if scaling == "yarn" else 1.0
        own = partial(frequencies, theta=theta, scaling=scaling, factor=factor, trained=self.trained)
        self.rotation = RotationByProduct(own, fraction, interleaved, self.stretch)

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
