"""Lion: `optimizer=lion`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modgpt.training.optimizers.checks import check_betas, check_not_negative
from modgpt.training.optimizers.stepping import WeightByWeight
from modgpt.training.optimizers.weights import decay_groups, dimensions


def lion(model: nn.Module, *, lr: float, weight_decay: float, beta1: float, beta2: float) -> Lion:
    """Lion for all weights, with weight decay on matrices only.

    Raises:
        ValueError: lr or weight_decay is negative, or a beta is not in [0, 1).
    """
    check_not_negative(lr=lr, weight_decay=weight_decay)
    check_betas(beta1=beta1, beta2=beta2)
    return Lion(decay_groups(dimensions(model), weight_decay), lr=lr, beta1=beta1, beta2=beta2)


class Lion(WeightByWeight):
    """Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2).

    With gradient g, rate η and weight decay λ, for each weight w:

        u = sign(β₁m + (1 − β₁)g)
        w ← w − η(u + λw)
        m ← β₂m + (1 − β₂)g

    Every number moves by η, whatever the size of its gradient. So the rate is several times smaller
    than AdamW's, and the decay larger by the same factor. It keeps one further number per weight;
    AdamW keeps two.

    Args:
        groups: parameter groups with their `weight_decay`.
        lr: η.
        beta1: how much of the momentum m is in the direction.
        beta2: how much of the momentum stays for the next step.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, beta1: float, beta2: float) -> None:
        super().__init__(groups, {"lr": lr, "beta1": beta1, "beta2": beta2})

    def update(
        self, weight: nn.Parameter, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum = state["momentum"]
        direction = momentum.lerp(gradient, 1 - group["beta1"]).sign_()
        weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(direction, alpha=group["lr"])
        momentum.lerp_(gradient, 1 - group["beta2"])
