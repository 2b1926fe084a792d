"""How optimizers step: weight by weight, and several together as one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class WeightByWeight(Optimizer):
    """An optimizer whose step treats each weight by itself: `update` says how.

    All state is made of tensors in the weight's type, lists of them, and plain numbers. So it is saved
    in a checkpoint and comes back with the same bits.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update every weight that has a gradient."""
        loss = evaluated(closure)
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    state = self.state[weight]
                    state["steps"] = state.get("steps", 0) + 1
                    self.update(weight, weight.grad, state, group)
        return loss

    @abstractmethod
    def update(
        self, weight: nn.Parameter, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        """Change one weight in place.

        Args:
            weight: to change.
            gradient: of the same shape, not to be changed.
            state: of this weight. `steps` counts its updates, this one included.
            group: the weight's parameter group, with `lr` as the schedule has set it.
        """


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
        loss = evaluated(closure)
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


def evaluated(closure: Callable[[], Any] | None) -> Any:
    """What a closure returns, with gradients enabled; None if there is none."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
