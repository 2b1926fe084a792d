"""The original two-layer feed-forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from modgpt.model.ffn.activations import ACTIVATIONS, activation_named
from modgpt.model.ffn.base import DenseFeedForward, LinearFactory, checked_hidden
from modgpt.model.init import Initializer


def standard(
    x: Tensor,
    *,
    up: Callable[[Tensor], Tensor],
    down: Callable[[Tensor], Tensor],
    activation: Callable[[Tensor], Tensor],
) -> Tensor:
    """W₂ f(W₁x), with W₁ = up and W₂ = down."""
    return down(activation(up(x)))


class StandardFeedForward(DenseFeedForward):
    """y = W₂ f(W₁x), hidden width 4C, f = GELU.

    Source: Vaswani et al. 2017, section 3.3, with GELU (Hendrycks & Gimpel 2016) for ReLU as in GPT-2.

    Args:
        hidden: hidden width; None for 4C.
        bias: give both projections a bias.
        activation: f, one of `modgpt.model.ffn.activations.ACTIVATIONS`.

    Raises:
        ValueError: hidden < 1, or an unknown activation.
    """

    definition = staticmethod(standard)
    variants = ({}, {"bias": True}, {"hidden": 10}, *({"activation": a} for a in ACTIVATIONS))

    def __init__(
        self,
        *,
        hidden: int | None = None,
        bias: bool = False,
        activation: str = "gelu",
        linear: LinearFactory = nn.Linear,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        hidden = checked_hidden(4 * self.d_model if hidden is None else hidden)
        self.hidden, self.activation = hidden, activation_named(activation)
        self.up = linear(self.d_model, hidden, bias=bias)
        self.down = linear(hidden, self.d_model, bias=bias)

    def transform(self, x: Tensor, *groups: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x, *groups)), *groups)

    def reset_parameters(self, init: Initializer) -> None:
        init.linear(self.up)
        init.linear(self.down, residual=True)
