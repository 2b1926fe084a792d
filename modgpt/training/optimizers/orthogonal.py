"""Muon, momentum whose matrices are orthogonalised before they are applied: `optimizer=muon`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from modgpt.training.optimizers.adam import make_adamw
from modgpt.training.optimizers.checks import check_betas, check_not_negative
from modgpt.training.optimizers.orthogonalization import (
    Orthogonalization,
    orthogonalized,
    polynomials,
)
from modgpt.training.optimizers.stepping import Together
from modgpt.training.optimizers.weights import block_matrices


def muon(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    adamw_lr: float,
    beta1: float,
    beta2: float,
    orthogonalization: Orthogonalization = "newton_schulz",
) -> Optimizer:
    """Muon for the matrices of the blocks, AdamW for everything else.

    Muon replaces the momentum M = UΣVᵀ of a matrix by about UVᵀ: the update has the same size in all
    directions. It suits maps between hidden layers: each projection of attention and feed-forward, and
    those of each expert of a mixture. Embeddings, head, vectors and scalars stay with AdamW.

    Args:
        model: the GPT. A module that computes several projections in one product names the rows of each
            in its attribute `fused`.
        lr: of Muon.
        weight_decay: of both, on matrices only.
        momentum: of Muon.
        adamw_lr, beta1, beta2: of AdamW.
        orthogonalization: how UVᵀ is computed (`orthogonalized`).

    Raises:
        ValueError: a rate or weight_decay is negative, momentum or a beta is not in [0, 1), or an
            unknown orthogonalization.
    """
    check_not_negative(lr=lr, adamw_lr=adamw_lr, weight_decay=weight_decay)
    check_betas(momentum=momentum)
    matrices, others, fused = block_matrices(model)
    hidden = Muon(
        matrices,
        fused,
        lr=lr,
        weight_decay=weight_decay,
        momentum=momentum,
        orthogonalization=orthogonalization,
    )
    return Together([hidden, make_adamw(others, adamw_lr, weight_decay, beta1, beta2)])


class Place(NamedTuple):
    """One matrix in a weight: the n-th of `Muon.matrices`."""

    weight: nn.Parameter
    n: int


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
        orthogonalization: how U is computed.

    Raises:
        ValueError: an unknown orthogonalization.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        fused: Mapping[nn.Parameter, Sequence[int]],
        *,
        lr: float,
        weight_decay: float,
        momentum: float,
        orthogonalization: Orthogonalization = "newton_schulz",
    ) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        polynomials(orthogonalization)  # or an error
        self.fused, self.orthogonalization = fused, orthogonalization

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step; the closure is left to `Together`."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor, Place]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                buffer = state["momentum_buffer"].lerp_(weight.grad, 1 - momentum)
                weight.mul_(1 - lr * group["weight_decay"])
                updates = self.matrices(weight, weight.grad.lerp(buffer, momentum))
                for n, matrix in enumerate(self.matrices(weight, weight)):
                    by_shape[matrix.shape].append((matrix, updates[n], Place(weight, n)))
            for (rows, columns), found in by_shape.items():
                matrices, updates, places = zip(*found, strict=True)
                rate = lr * math.sqrt(max(1, rows / columns))
                directions = self.directions(torch.stack(updates), places)
                for matrix, direction in zip(matrices, directions, strict=True):
                    matrix.sub_(direction, alpha=rate)

    def directions(self, updates: Tensor, places: Sequence[Place]) -> Tensor:
        """U of matrices of one shape: (N, rows, columns) each."""
        return orthogonalized(updates, self.orthogonalization)

    def matrices(self, weight: nn.Parameter, values: Tensor) -> list[Tensor]:
        """The matrices in a tensor with the weight's rows, as views of (rows, columns)."""
        experts = values.unbind(0) if values.dim() == 3 else [values]
        rows = self.fused.get(weight, [values.shape[-2]])
        return [matrix for expert in experts for matrix in expert.split_with_sizes(list(rows))]
