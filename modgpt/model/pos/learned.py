"""A learned vector for every position."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from modgpt.model.init import Initializer
from modgpt.model.pos.base import Position


def learned(x: Tensor, t: int, *, table: nn.Embedding) -> Tensor:
    """x + Pₜ, the row of position t in a trained table P, for one embedding x (C,)."""
    return x + table.weight[t]


class LearnedPosition(Position):
    """x + P[t], P a trained table of `block_size` rows.

    Source: Gehring et al. 2017; GPT-2. Positions past the table do not exist: the model raises there,
    and `generate` re-reads the last half of the window to go on.
    """

    embed_definition = staticmethod(learned)
    relative = False

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        self.max_length = block_size = sizes["block_size"]
        self.table = nn.Embedding(block_size, sizes["d_model"])

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + self.table(positions).type_as(x)

    def reset_parameters(self, init: Initializer) -> None:
        init.normal(self.table.weight)
