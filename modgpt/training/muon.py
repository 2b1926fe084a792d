"""Muon: momentum whose matrices are orthogonalised before they are applied."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# An odd polynomial σ ↦ aσ + bσ³ + cσ⁵. Five rounds bring every σ in (0, 1] near 1 (Jordan et al. 2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


class Muon(Optimizer):
    """Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks").

    With gradient G, momentum μ, rate η and weight decay λ, for each matrix W (rows, columns):

        M ← μM + (1 − μ)G
        U ← orthogonalized(μM + (1 − μ)G)          Nesterov's momentum
        W ← (1 − ηλ)W − η √max(1, rows/columns) U

    `torch.optim.Muon` does the same, but takes each weight as one matrix. Here a weight may hold
    several: projections that are fused into one product, one above the other, or the experts of a
    mixture, stacked along a leading dimension. Each is orthogonalised by itself. As one matrix, the
    projection with the largest gradient would leave almost nothing for the others.

    Args:
        weights: (rows, columns) or (E, rows, columns) each.
        fused: the rows of each projection, for the weights that hold several.
        lr: η.
        weight_decay: λ.
        momentum: μ.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        fused: Mapping[nn.Parameter, Sequence[int]],
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
    ) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.fused = fused

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step; the closure is left to `Together`."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                buffer = state["momentum_buffer"].lerp_(weight.grad, 1 - momentum)
                weight.mul_(1 - lr * group["weight_decay"])
                for matrix, update in zip(
                    self.matrices(weight, weight),
                    self.matrices(weight, weight.grad.lerp(buffer, momentum)),
                    strict=True,
                ):
                    by_shape[matrix.shape].append((matrix, update))
            for (rows, columns), pairs in by_shape.items():
                directions = orthogonalized(torch.stack([update for _, update in pairs]))
                rate = lr * math.sqrt(max(1, rows / columns))
                for (matrix, _), direction in zip(pairs, directions, strict=True):
                    matrix.sub_(direction, alpha=rate)

    def matrices(self, weight: nn.Parameter, values: Tensor) -> list[Tensor]:
        """The matrices in a tensor of the weight's shape, as views of (rows, columns)."""
        experts = values.unbind(0) if values.dim() == 3 else [values]
        rows = self.fused.get(weight, [values.shape[-2]])
        return [matrix for expert in experts for matrix in expert.split_with_sizes(list(rows))]


def orthogonalized(matrices: Tensor) -> Tensor:
    """Matrices with the same singular vectors and singular values near 1: (N, rows, columns) in bf16.

    Newton-Schulz iteration on X/‖X‖, whose singular values are at most 1. It works on the wide form, for
    the product XXᵀ is then the smaller one. Values come out between about 0.7 and 1.2; smaller ones,
    below a hundredth of the largest, do not get there.
    """
    a, b, c = COEFFICIENTS
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
