"""Optimizers: functions of the model, so that each decides itself which weights it treats how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


def adamw(model: nn.Module, *, lr: float, weight_decay: float, beta1: float, beta2: float) -> Optimizer:
    """AdamW (Loshchilov & Hutter 2019) with weight decay on matrices only.

    Vectors and scalars (biases, gains of norms) are not decayed: shrinking them regularises nothing and
    fights the norms.

    Raises:
        ValueError: lr or weight_decay is negative, or a beta is not in [0, 1).
    """
    check(lr=lr, weight_decay=weight_decay)
    return make_adamw(model.named_parameters(), lr, weight_decay, beta1, beta2)


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

    Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") replaces the
    momentum M = UΣVᵀ of a matrix by about UVᵀ, so that the update is equally large in all directions;
    a step is lr·√max(1, rows/columns) of it. Embeddings, head, vectors and scalars are no maps between
    hidden layers and stay with AdamW, and so do the experts of a mixture, whose matrices are stacked.

    Args:
        model: the GPT.
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
    hidden = [p for p in model.get_submodule("blocks").parameters() if p.dim() == 2]
    taken = {id(p) for p in hidden}
    others = [(name, p) for name, p in model.named_parameters() if id(p) not in taken]
    matrices = torch.optim.Muon(hidden, lr=lr, weight_decay=weight_decay, momentum=momentum)
    return Together([matrices, make_adamw(others, adamw_lr, weight_decay, beta1, beta2)])


def make_adamw(
    named: Iterable[tuple[str, nn.Parameter]],
    lr: float,
    weight_decay: float,
    beta1: float,
    beta2: float,
) -> Optimizer:
    for name, value in (("beta1", beta1), ("beta2", beta2)):
        if not 0 <= value < 1:
            raise ValueError(f"optimizer.{name} must lie in [0, 1), got {value}")
    named = list(named)
    # The biases of a mixture's experts are stacked to matrices, and are vectors all the same.
    decayed = [p for name, p in named if p.dim() >= 2 and not name.endswith("bias")]
    others = [p for name, p in named if p.dim() < 2 or name.endswith("bias")]
    param_groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
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
