"""Optimizers: functions of the model, so that each decides itself which weights it treats how."""

from __future__ import annotations

import torch
from torch import nn


def adamw(
    model: nn.Module, *, lr: float, weight_decay: float, beta1: float, beta2: float
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) with weight decay on matrices only.

    Vectors and scalars (biases, gains of norms) are not decayed: shrinking them regularises nothing and
    fights the norms.

    Raises:
        ValueError: lr or weight_decay is negative, or a beta is not in [0, 1).
    """
    for name, value in (("lr", lr), ("weight_decay", weight_decay)):
        if value < 0:
            raise ValueError(f"optimizer.{name} must not be negative, got {value}")
    for name, value in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= value < 1:
            raise ValueError(f"optimizer.{name} must lie in [0, 1), got {value}")
    named = list(model.named_parameters())
    # The biases of a mixture's experts are stacked to matrices, and are vectors all the same.
    decayed = [p for name, p in named if p.dim() >= 2 and not name.endswith("bias")]
    others = [p for name, p in named if p.dim() < 2 or name.endswith("bias")]
    param_groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(param_groups, lr=lr, betas=(beta1, beta2), fused=True)
