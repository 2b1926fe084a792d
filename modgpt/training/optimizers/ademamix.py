"""AdEMAMix: `optimizer=ademamix`."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from modgpt.training.optimizers.adam import adam_moments
from modgpt.training.optimizers.checks import check_at_least_one, check_betas, check_not_negative
from modgpt.training.optimizers.stepping import WeightByWeight
from modgpt.training.optimizers.weights import decay_groups, dimensions


def ademamix(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
    beta3: float,
    alpha: float,
    slow_warmup: int | None,
) -> AdEMAMix:
    """AdEMAMix for all weights, with weight decay on matrices only.

    Raises:
        ValueError: lr, weight_decay or alpha is negative, a beta is not in [0, 1), or slow_warmup < 1.
    """
    check_not_negative(lr=lr, weight_decay=weight_decay, alpha=alpha)
    check_betas(beta1=beta1, beta2=beta2, beta3=beta3)
    if slow_warmup is not None:
        check_at_least_one(slow_warmup=slow_warmup)
    return AdEMAMix(
        decay_groups(dimensions(model), weight_decay),
        lr=lr,
        beta1=beta1,
        beta2=beta2,
        beta3=beta3,
        alpha=alpha,
        slow_warmup=slow_warmup,
    )


class AdEMAMix(WeightByWeight):
    """AdEMAMix (Pagliardini et al. 2024, "The AdEMAMix Optimizer: Better, Faster, Older").

    AdamW with a second, slow running mean of the gradients, which remembers thousands of steps. With
    gradient g, rate η and weight decay λ, at step t:

        m₁ ← β₁m₁ + (1 − β₁)g
        m₂ ← β₃(t) m₂ + (1 − β₃(t))g
        v  ← β₂v  + (1 − β₂)g²
        u = (m₁/(1 − β₁ᵗ) + α(t) m₂) / (√(v/(1 − β₂ᵗ)) + ε)
        w ← w − η(u + λw)

    m₂ starts at 0 and is not corrected for it. α(t) and β₃(t) reach α and β₃ after T steps.

    Args:
        groups: parameter groups with their `weight_decay`.
        lr: η.
        beta1, beta2: β₁ and β₂, as AdamW's.
        beta3: β₃.
        alpha: α.
        slow_warmup: T; None for α and β₃ from the first step on.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        lr: float,
        beta1: float,
        beta2: float,
        beta3: float,
        alpha: float,
        slow_warmup: int | None,
    ) -> None:
        fast = {"lr": lr, "beta1": beta1, "beta2": beta2}
        super().__init__(groups, fast | {"beta3": beta3, "alpha": alpha, "slow_warmup": slow_warmup})

    def update(
        self, weight: nn.Parameter, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        step, horizon = state["steps"], group["slow_warmup"]
        if "slow" not in state:
            state["slow"] = torch.zeros_like(gradient)
        beta3 = beta3_at(step, group["beta1"], group["beta3"], horizon)
        slow = state["slow"].lerp_(gradient, 1 - beta3)
        mean, root = adam_moments(gradient, state, group["beta1"], group["beta2"])
        direction = mean.add_(slow, alpha=alpha_at(step, group["alpha"], horizon)).div_(root)
        weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])


def alpha_at(step: int, alpha: float, slow_warmup: int | None) -> float:
    """α(t) = α min(1, t/T)."""
    return alpha if slow_warmup is None else alpha * min(1.0, step / slow_warmup)


def beta3_at(step: int, beta1: float, beta3: float, slow_warmup: int | None) -> float:
    """β₃(t) between β₁ and β₃: 1/log β₃(t) = (1 − t/T)/log β₁ + (t/T)/log β₃, and β₃ from T on.

    −1/log β is about the number of steps that a running mean remembers. It grows by the same amount
    in each step. A straight line from β₁ to β₃ would spend nearly all steps at short memories.
    """
    if slow_warmup is None or step >= slow_warmup:
        return beta3
    share = step / slow_warmup
    memory = (1 - share) * memory_of(beta1) + share * memory_of(beta3)
    return min(beta3, math.exp(-1 / memory)) if memory > 0 else 0.0


def memory_of(beta: float) -> float:
    """−1/log β, 0 for β = 0."""
    return -1 / math.log(beta) if beta > 0 else 0.0
