"""What all feed-forward layers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.model.cost import Cost, count_parameters
from modgpt.model.definition import bound, definition_of
from modgpt.model.init import Initializer

# Builds a projection, called with (in_features, out_features, bias=…).
LinearFactory = Callable[..., nn.Module]


class FeedForward(nn.Module, ABC):
    """Base of every feed-forward layer: forward(x (B,T,C)) -> (y (B,T,C), aux).

    `aux` is a small dict, empty for a dense layer. Its entry `loss`, where there is one, is added to the
    training loss; the others are logged.

    Args:
        d_model: model width C.
        layer: index of the layer, for options that differ from layer to layer.
        dropout: probability of dropping an element of the output.

    Attributes:
        definition: the formula of `forward` without dropout.
        variants: values of knobs to test with, the first of them small.
    """

    definition: ClassVar[Callable[..., Any]]
    variants: ClassVar[Sequence[Mapping[str, Any]]] = ({},)

    def __init__(self, *, d_model: int, layer: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.d_model, self.layer, self.dropout = d_model, layer, dropout

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]: ...

    @abstractmethod
    def cost(self, length: int) -> Cost:
        """Declared cost at sequence length `length`."""

    @abstractmethod
    def reset_parameters(self, init: Initializer) -> None:
        """Draw the initial weights; the projection back to C is a residual one."""


class DenseFeedForward(FeedForward):
    """A feed-forward every token goes through, as a layer of its own or as an expert of a mixture.

    It builds its projections with `linear`, by default `torch.nn.Linear`. A mixture hands in a factory
    of stacked projections instead, so that one module holds all experts, and passes what those need to
    know, `groups`, through `transform`.

    Attributes:
        definition: the formula of `transform`, (…,C) -> (…,C).
    """

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.transform(x)
        return F.dropout(y, self.dropout) if self.training else y, {}

    @abstractmethod
    def transform(self, x: Tensor, *groups: Tensor) -> Tensor:
        """(…,C) -> (…,C); `groups` goes to every projection untouched."""

    def defined(self) -> Callable[[Tensor], tuple[Tensor, dict[str, Tensor]]]:
        """This layer by its definition."""
        transform = bound(definition_of(self), self)
        return lambda x: (transform(x), {})

    def cost(self, length: int) -> Cost:
        n = count_parameters(self)
        # Every weight belongs to a projection: multiplied and added once per token.
        weights = sum(w.numel() for n, w in self.named_parameters() if n.endswith("weight"))
        return Cost(n, n, 2 * weights)


def checked_hidden(hidden: int) -> int:
    """`hidden`, or a `ValueError` when it is below 1."""
    if hidden < 1:
        raise ValueError(f"ffn.hidden must be at least 1, got {hidden}")
    return hidden
