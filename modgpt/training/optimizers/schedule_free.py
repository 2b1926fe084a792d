"""Schedule-free AdamW: `optimizer=schedule_free`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from modgpt.training.optimizers.adam import EPS
from modgpt.training.optimizers.checks import check_betas, check_not_negative
from modgpt.training.optimizers.stepping import evaluated
from modgpt.training.optimizers.weights import decay_groups, dimensions


def schedule_free(
    model: nn.Module, *, lr: float, weight_decay: float, beta1: float, beta2: float
) -> ScheduleFree:
    """Schedule-free AdamW for all weights, with weight decay on matrices only.

    Raises:
        ValueError: lr or weight_decay is negative, or a beta is not in [0, 1).
    """
    check_not_negative(lr=lr, weight_decay=weight_decay)
    check_betas(beta1=beta1, beta2=beta2)
    groups = decay_groups(dimensions(model), weight_decay)
    return ScheduleFree(groups, lr=lr, beta1=beta1, beta2=beta2)


class ScheduleFree(Optimizer):
    """Schedule-free AdamW (Defazio et al. 2024, "The Road Less Scheduled", algorithm 1).

    The average x of the iterates z takes the place of a falling learning rate. The gradient g is that at
    y, between the two. With rate η and weight decay λ, at step t:

        y = (1 − β₁)z + β₁x
        v ← β₂v + (1 − β₂)g²
        z ← z − η(g / (√(v/(1 − β₂ᵗ)) + ε) + λy)
        x ← (1 − c)x + cz                         c = h² / Σ h², h the largest rate so far

    h is η while the rate does not fall; the paper has η there, its authors' code h. The schedule that
    fits is `constant`: a warm-up, then the same rate.

    **The model's weights are x**: what is validated, saved and generated from. Only from `to_y` to
    `to_x`, around a forward and backward pass, they are y. LitGPT calls both; a loop written by hand
    uses `gradient_point`. A checkpoint has x in the model, and z and v in the optimizer's state.

    Args:
        groups: parameter groups with their `weight_decay`.
        lr: η.
        beta1: how near y is to the average.
        beta2: β₂, as AdamW's.
    """

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, beta1: float, beta2: float) -> None:
        defaults = {"lr": lr, "beta1": beta1, "beta2": beta2}
        super().__init__(groups, defaults | {"steps": 0, "largest_lr": 0.0, "sum": 0.0})
        self.averages: list[Tensor] = []  # x, while the weights are y

    @torch.no_grad()
    def to_y(self) -> None:
        """Make the weights y, where the gradient is taken."""
        if self.averages:
            return
        for weight, group in self.weights():
            self.averages.append(weight.clone())
            weight.copy_(self.y(weight, group))

    @torch.no_grad()
    def to_x(self) -> None:
        """Make the weights the average x again, with the same bits as before `to_y`."""
        for (weight, _), average in zip(self.weights(), self.averages, strict=False):
            weight.copy_(average)
        self.averages = []

    def weights(self) -> Iterator[tuple[nn.Parameter, dict[str, Any]]]:
        """Every weight with its group."""
        return ((weight, group) for group in self.param_groups for weight in group["params"])

    def y(self, x: Tensor, group: dict[str, Any]) -> Tensor:
        """y of a weight that is x now, a new tensor."""
        return torch.lerp(self.state.get(x, {}).get("z", x), x, group["beta1"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step, with gradients that were taken at y; the weights are x before and after it."""
        loss = evaluated(closure)
        for group in self.param_groups:
            lr, beta2 = group["lr"], group["beta2"]
            group["steps"] += 1
            group["largest_lr"] = max(group["largest_lr"], lr)
            group["sum"] += group["largest_lr"] ** 2
            share = group["largest_lr"] ** 2 / group["sum"] if group["sum"] else 0.0
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state, gradient = self.state[weight], weight.grad
                if "z" not in state:
                    state["z"], state["squares"] = weight.clone(), torch.zeros_like(gradient)
                squares = state["squares"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                root = (squares / (1 - beta2 ** group["steps"])).sqrt_().add_(EPS)
                direction = (gradient / root).add_(self.y(weight, group), alpha=group["weight_decay"])
                z = state["z"].sub_(direction, alpha=lr)
                weight.lerp_(z, share)
        return loss


@contextmanager
def gradient_point(optimizer: Optimizer) -> Iterator[None]:
    """Within it, the weights are those at which the optimizer wants the gradient."""
    if not isinstance(optimizer, ScheduleFree):
        yield
        return
    optimizer.to_y()
    try:
        yield
    finally:
        optimizer.to_x()
