"""What attentions over a fixed sparse pattern share: the choice of a kernel."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor

from modgpt.kernels.flex_attention import FlexAttention, Rule
from modgpt.model.attention.gathered import distance_bias
from modgpt.model.attention.softmax import SoftmaxAttention
from modgpt.model.pos.base import Position
from modgpt.model.state import State


class PatternAttention(SoftmaxAttention):
    """Base of softmax attentions in which a fixed pattern says which keys a query sees.

    An option implements `gathered`, which serves training and decoding everywhere, and `rule`, for
    `modgpt.kernels.flex_attention`, which may compute whole sequences on a GPU.

    Args:
        kernel: gathered or flex.

    Raises:
        ValueError: no such kernel, or one that does not know sinks or a soft cap.
    """

    def __init__(self, *, kernel: Literal["gathered", "flex"] = "gathered", **base: Any) -> None:
        super().__init__(**base)
        if kernel not in ("gathered", "flex"):
            raise ValueError(f"attention.kernel must be gathered or flex, got {kernel!r}")
        if kernel == "flex" and (self.sinks is not None or self.softcap is not None):
            raise ValueError("attention.kernel=flex knows no sinks and no softcap: use kernel=gathered")
        self.kernel = kernel
        self.flex = FlexAttention()

    def mix(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pos: Position,
        positions: Tensor,
        state: State | None,
    ) -> tuple[Tensor, State | None]:
        dropping = self.training and self.dropout > 0
        if self.kernel == "flex" and state is None and self.flex.is_possible(q, dropping):
            bias = distance_bias(pos, torch.arange(q.shape[2], device=q.device))  # (H,T)
            return self.flex(q, k, v, rule=self.rule, bias=bias, scale=self.scale), None
        return self.gathered(q, k, v, pos, state)

    @abstractmethod
    def gathered(
        self, q: Tensor, k: Tensor, v: Tensor, pos: Position, state: State | None
    ) -> tuple[Tensor, State | None]:
        """`mix`, each block of queries over the keys gathered for it."""

    @abstractmethod
    def rule(self, length: int, device: torch.device) -> Rule:
        """Whether query i sees key j in a sequence of `length` tokens, for tensors of positions."""
