"""Optimizers: functions of the model, because each treats some weights differently from others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from modgpt.training.muon import Muon


def adamw(model: nn.Module, *, lr: float, weight_decay: float, beta1: float, beta2: float) -> Optimizer:
    """AdamW (Loshchilov & Hutter 2019) with weight decay on matrices only.

    Vectors and scalars (biases, gains of norms) are not decayed: shrinking them regularises nothing and
    works against the norms.

    Raises:
        ValueError: lr or weight_decay is negative, or a beta is not in [0, 1).
    """
    check(lr=lr, weight_decay=weight_decay)
    return make_adamw(dimensions(model), lr, weight_decay, beta1, beta2)


def muon(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    adamw_lr: float,
    beta1: float,
    beta2: float,
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

    Raises:
        ValueError: a rate or weight_decay is negative, or momentum or a beta is not in [0, 1).
    """
    check(lr=lr, adamw_lr=adamw_lr, weight_decay=weight_decay)
    if not 0 <= momentum < 1:
        raise ValueError(f"optimizer.momentum must lie in [0, 1), got {momentum}")
    blocks, everything = model.get_submodule("blocks"), dimensions(model)
    hidden = [p for p in blocks.parameters() if everything[p] == 2]
    fused = {
        module.get_parameter(name): rows
        for module in blocks.modules()
        for name, rows in getattr(module, "fused", {}).items()
    }
    others = {p: n for p, n in everything.items() if p not in set(hidden)}
    matrices = Muon(hidden, fused, lr=lr, weight_decay=weight_decay, momentum=momentum)
    return Together([matrices, make_adamw(others, adamw_lr, weight_decay, beta1, beta2)])


def dimensions(model: nn.Module) -> dict[nn.Parameter, int]:
    """Each parameter with its number of dimensions: 2 for a matrix, 1 for a vector.

    The experts of a mixture are stacked along a leading dimension, which does not count: their biases
    are vectors. Such a module has `stacked = True`.
    """
    return {
        p: p.dim() - bool(getattr(module, "stacked", False))
        for module in model.modules()
        for p in module.parameters(recurse=False)
    }


def make_adamw(
    parameters: dict[nn.Parameter, int],
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
) -> Optimizer:
    """AdamW over parameters with their numbers of dimensions; from two on they decay."""
    for name, value in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= value < 1:
            raise ValueError(f"optimizer.{name} must lie in [0, 1), got {value}")
    param_groups = [
        {"params": [p for p, n in parameters.items() if n >= 2], "weight_decay": weight_decay},
        {"params": [p for p, n in parameters.items() if n < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(param_groups, lr=lr, betas=(beta1, beta2), fused=True)


def check(**values: float) -> None:
    """Refuse negative rates."""
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"optimizer.{name} must not be negative, got {value}")


class Together(Optimizer):
    """Several optimizers that step as one, each on parameters of its own.

    Lightning, schedules and checkpoints know a single optimizer. Its parameter groups are those of the
    members, the very same dictionaries, so that a schedule that sets a rate here sets it there.

    Args:
        members: the optimizers.
    """

    def __init__(self, members: Sequence[Optimizer]) -> None:
        self.members = list(members)
        super().__init__(self.groups(), {})

    def groups(self) -> list[dict[str, Any]]:
        return [group for member in self.members for group in member.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of every member, after one evaluation of the closure."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for member in self.members:
            member.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The members' states."""
        return {"members": [member.state_dict() for member in self.members]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for member, state in zip(self.members, state_dict["members"], strict=True):
            member.load_state_dict(state)
        self.param_groups = self.groups()  # loading has replaced the dictionaries
