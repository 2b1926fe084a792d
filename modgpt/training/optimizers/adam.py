"""AdamW: `optimizer=adamw`, also with cautious weight decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from modgpt.training.optimizers.checks import check_betas, check_not_negative
from modgpt.training.optimizers.stepping import WeightByWeight
from modgpt.training.optimizers.weights import decay_groups, dimensions

EPS = 1e-8


def adamw(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
    cautious: bool = False,
) -> Optimizer:
    """AdamW (Loshchilov & Hutter 2019) with weight decay on matrices only.

    Args:
        model: whose weights are trained.
        lr, weight_decay: of the step; vectors and scalars (biases, gains of norms) are not decayed.
        beta1, beta2: of the running means of gradients and of their squares.
        cautious: decay a weight only where the update pulls it towards 0 too (`CautiousAdamW`).

    Raises:
        ValueError: lr or weight_decay is negative, or a beta is not in [0, 1).
    """
    check_not_negative(lr=lr, weight_decay=weight_decay)
    if not cautious:
        return make_adamw(dimensions(model), lr, weight_decay, beta1, beta2)
    check_betas(beta1=beta1, beta2=beta2)
    return CautiousAdamW(decay_groups(dimensions(model), weight_decay), lr=lr, beta1=beta1, beta2=beta2)


def make_adamw(
    parameters: dict[nn.Parameter, int],
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
) -> Optimizer:
    """AdamW over parameters with their numbers of dimensions; from two on they decay.

    Raises:
        ValueError: a beta is not in [0, 1).
    """
    check_betas(beta1=beta1, beta2=beta2)
    groups = decay_groups(parameters, weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), eps=EPS, fused=True)


class CautiousAdamW(WeightByWeight):
    """AdamW with cautious weight decay (Chen et al. 2025, "Cautious Weight Decay").

    With gradient g, rate η and weight decay λ, at step t:

        m ← β₁m + (1 − β₁)g                v ← β₂v + (1 − β₂)g²
        u = m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε)
        w ← w − η(u + λ [u·w ≥ 0] w)

    The bracket is 1 where the condition holds, else 0: a number decays only if the update makes it
    smaller too. PyTorch's fused AdamW decays everything, so the step is written out here.

    Args:
        groups: parameter groups with their `weight_decay`.
        lr: η.
        beta1, beta2: β₁ and β₂.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, beta1: float, beta2: float) -> None:
        super().__init__(groups, {"lr": lr, "beta1": beta1, "beta2": beta2})

    def update(
        self, weight: nn.Parameter, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        mean, root = adam_moments(gradient, state, group["beta1"], group["beta2"])
        direction = mean.div_(root)
        decayed = weight * (direction * weight >= 0)
        weight.sub_(direction.add_(decayed, alpha=group["weight_decay"]), alpha=group["lr"])


def adam_moments(
    gradient: Tensor, state: dict[str, Any], beta1: float, beta2: float
) -> tuple[Tensor, Tensor]:
    """Adam's corrected mean m/(1 − β₁ᵗ) and root √(v/(1 − β₂ᵗ)) + ε, after one more gradient.

    Args:
        gradient: the new one.
        state: with `steps`, this one included. `mean` and `squares` are added at the first step.
        beta1, beta2: of the running means.

    Returns:
        Two new tensors.
    """
    if "mean" not in state:
        state["mean"], state["squares"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    steps = state["steps"]
    mean = state["mean"].lerp_(gradient, 1 - beta1)
    squares = state["squares"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    return mean / (1 - beta1**steps), (squares / (1 - beta2**steps)).sqrt_().add_(EPS)
