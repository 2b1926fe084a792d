"""Orthogonalization: UΣVᵀ to about UVᵀ by matrix products alone, as Muon needs it."""

from __future__ import annotations

from itertools import repeat
from typing import Literal

import torch
from torch import Tensor

from modgpt.training.optimizers.checks import check_choice

Orthogonalization = Literal["newton_schulz", "polar_express"]
Polynomial = tuple[float, float, float]

ROUNDS = 5
# An odd polynomial σ ↦ aσ + bσ³ + cσ⁵. Five rounds bring every σ in (0, 1] near 1 (Jordan et al. 2024).
NEWTON_SCHULZ: Polynomial = (3.4445, -4.7750, 2.0315)
# One polynomial per round (Amsel et al. 2025, "The Polar Express", algorithm 1, degree 5, σ ≥ 0.001):
# each is the one that leaves the least error, given the interval that the rounds before it lead to.
MINIMAX: tuple[Polynomial, ...] = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
SAFETY = 1.01  # rounding in bf16 may leave the interval: each polynomial works on one that is 1 % wider
POLAR_EXPRESS = tuple((a / SAFETY, b / SAFETY**3, c / SAFETY**5) for a, b, c in MINIMAX)


def polynomials(method: str) -> list[Polynomial]:
    """The polynomial of each round.

    Raises:
        ValueError: an unknown method.
    """
    check_choice("orthogonalization", method, ("newton_schulz", "polar_express"))
    return list(POLAR_EXPRESS) if method == "polar_express" else list(repeat(NEWTON_SCHULZ, ROUNDS))


def orthogonalized(matrices: Tensor, method: str = "newton_schulz") -> Tensor:
    """Matrices with the same singular vectors and singular values near 1: (N, rows, columns) in bf16.

    Each round applies an odd polynomial to the singular values of X/‖X‖, which are at most 1. It works
    on the wide form, for the product XXᵀ is then the smaller one.

    `newton_schulz` has one polynomial for all rounds. Values above 0.002 ‖X‖ come out between 0.68 and
    1.21; smaller ones do not get there. `polar_express` has one polynomial for each round, at the same
    cost. Values above 0.001 ‖X‖ come out between 0.84 and 1.13.
    """
    rounds = polynomials(method)
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    if method == "polar_express":
        x = x / SAFETY
    for a, b, c in rounds:
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
