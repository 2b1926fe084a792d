"""SOAP, Adam in the eigenbasis of Shampoo: `optimizer=soap`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modgpt.training.optimizers.adam import EPS, make_adamw
from modgpt.training.optimizers.checks import check_at_least_one, check_betas, check_not_negative
from modgpt.training.optimizers.eigenbasis import (
    covariances,
    eigenvectors,
    power_iterated,
    rotated,
    rotated_back,
)
from modgpt.training.optimizers.stepping import Together, WeightByWeight
from modgpt.training.optimizers.weights import block_matrices


def soap(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
    frequency: int,
    largest_side: int,
) -> Together:
    """SOAP for the matrices of the blocks, AdamW for everything else.

    Args:
        model: the GPT. A module that computes several projections in one product names the rows of each
            in its attribute `fused`.
        lr, beta1, beta2: of both.
        weight_decay: of both, on matrices only.
        frequency: steps between two updates of the eigenbases.
        largest_side: a longer side of a matrix is not rotated.

    Raises:
        ValueError: lr or weight_decay is negative, a beta is not in [0, 1), or frequency or largest_side
            is below 1.
    """
    check_not_negative(lr=lr, weight_decay=weight_decay)
    check_betas(beta1=beta1, beta2=beta2)
    check_at_least_one(frequency=frequency, largest_side=largest_side)
    matrices, others, fused = block_matrices(model)
    hidden = Soap(
        matrices,
        fused,
        lr=lr,
        weight_decay=weight_decay,
        beta1=beta1,
        beta2=beta2,
        frequency=frequency,
        largest_side=largest_side,
    )
    return Together([hidden, make_adamw(others, lr, weight_decay, beta1, beta2)])


class Soap(WeightByWeight):
    """SOAP (Vyas et al. 2024, "SOAP: Improving and Stabilizing Shampoo using Adam", algorithm 3).

    With gradient G, rate η and weight decay λ, for each matrix W (rows, columns), at step t:

        M ← β₁M + (1 − β₁)G
        V ← β₂V + (1 − β₂)(PᵀGQ)²                              in the eigenbases
        W ← (1 − ηλ)W − η P (PᵀMQ/(1 − β₁ᵗ) / (√(V/(1 − β₂ᵗ)) + ε)) Qᵀ
        L ← β₂L + (1 − β₂)GGᵀ               R ← β₂R + (1 − β₂)GᵀG
        every `frequency` steps: P, Q ← one round of power iteration on L, R, by a QR decomposition

    P and Q are the eigenvectors of L and R, sorted by eigenvalue. As in the authors' code, the first
    gradient only gives the first L, R, P and Q, and t counts from the second: in the basis of its own
    gradient, all numbers outside the diagonal are rounding errors.

    Each projection of a fused weight and each expert has eigenbases of its own.

    Args:
        weights: (rows, columns) or (E, rows, columns) each.
        fused: the rows of each projection, for the weights that hold several.
        lr: η.
        weight_decay: λ.
        beta1, beta2: β₁ and β₂.
        frequency: steps between two updates of P and Q.
        largest_side: a longer side keeps its own basis: P or Q is the identity.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        fused: Mapping[nn.Parameter, Sequence[int]],
        *,
        lr: float,
        weight_decay: float,
        beta1: float,
        beta2: float,
        frequency: int,
        largest_side: int,
    ) -> None:
        adam = {"lr": lr, "weight_decay": weight_decay, "beta1": beta1, "beta2": beta2}
        super().__init__(weights, adam)
        self.fused, self.frequency, self.largest_side = fused, frequency, largest_side

    def update(
        self, weight: nn.Parameter, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        beta1, beta2, lr = group["beta1"], group["beta2"], group["lr"]
        rows = list(self.fused.get(weight, [weight.shape[-2]]))
        gradients = gradient.split_with_sizes(rows, dim=-2)
        t = state["steps"] - 1
        if t == 0:
            state["mean"], state["squares"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            scale = (1 - beta2) ** 0.5  # as if the running covariances had been 0 before
            state["covariances"] = [covariances(scale * g, self.largest_side) for g in gradients]
            state["bases"] = [[eigenvectors(c) for c in both] for both in state["covariances"]]
            return
        parts = [x.split_with_sizes(rows, dim=-2) for x in (weight, state["mean"], state["squares"])]
        for n, (w, mean, squares) in enumerate(zip(*parts, strict=True)):
            g, running, bases = gradients[n], state["covariances"][n], state["bases"][n]
            mean.lerp_(g, 1 - beta1)
            squares.lerp_(rotated(g, *bases).square(), 1 - beta2)
            root = (squares / (1 - beta2**t)).sqrt_().add_(EPS)
            direction = rotated_back((rotated(mean, *bases) / (1 - beta1**t)).div_(root), *bases)
            w.mul_(1 - lr * group["weight_decay"]).sub_(direction, alpha=lr)
            for covariance, new in zip(running, covariances(g, self.largest_side), strict=True):
                if covariance is not None:
                    covariance.lerp_(new, 1 - beta2)
            if t % self.frequency == 0:
                state["bases"][n] = power_iterated(running, bases, squares)
