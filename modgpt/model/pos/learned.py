"""A learned vector for every position."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from modgpt.model.init import Initializer
from modgpt.model.pos.base import Position


def learned(x: Tensor, t: int, *, table: nn.Embedding, offset: int) -> Tensor:
    """x + Pₜ, the row of position t in a trained table P, for one embedding x (C,)."""
    return x + table.weight[t + offset]


class LearnedPosition(Position):
    """x + P[t], P a trained table of `block_size` rows.

    Source: Gehring et al. 2017; GPT-2. Positions past the table do not exist: the model raises there,
    and `generate` re-reads the last half of the window to go on.

    Args:
        offset: the row of position 0. OPT's tables begin with two rows that no position reads.

    Raises:
        ValueError: `offset` is negative.
    """

    embed_definition = staticmethod(learned)
    variants = ({}, {"offset": 2})
    relative = False

    def __init__(self, *, offset: int = 0, **sizes: Any) -> None:
        super().__init__(**sizes)
        if offset < 0:
            raise ValueError(f"pos.offset must not be negative, got {offset}")
        self.offset = offset
        self.max_length = block_size = sizes["block_size"]
        self.table = nn.Embedding(block_size + offset, sizes["d_model"])

    def embed(self, x: Tensor, positions: Tensor) -> Tensor:
        return x + self.table(positions + self.offset).type_as(x)

    def reset_parameters(self, init: Initializer) -> None:
        init.normal(self.table.weight)
