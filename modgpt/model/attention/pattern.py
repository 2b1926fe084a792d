"""What attentions over a fixed sparse pattern share: two ways to compute the same softmax."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from modgpt.model.attention.base import Attention
from modgpt.model.attention.gathered import distance_bias
from modgpt.model.pos.base import Position
from modgpt.model.state import State

# Of positions of queries i and keys j, whether i sees j.
Rule = Callable[[Tensor, Tensor], Tensor]


class PatternAttention(Attention):
    """Base of softmax attentions in which a fixed pattern says which keys a query sees.

    An option implements `gathered`, for training and decoding anywhere, and `rule`, the definition
    itself. Whole sequences on a GPU may go through FlexAttention instead: a kernel made for the pattern,
    which skips each 128×128 block of scores that has nothing to see, and writes no scores to memory. It
    has no dropout of weights, and for a CPU no gradients: there, and in decoding, keys are gathered.

    Source: Dong et al. 2024, "Flex Attention: A Programming Model for Generating Optimized Attention
    Kernels", section 4, as `torch.nn.attention.flex_attention`.

    Args:
        kernel: gathered or flex.

    Raises:
        ValueError: no such kernel.
    """

    def __init__(self, *, kernel: Literal["gathered", "flex"] = "gathered", **base: Any) -> None:
        super().__init__(**base)
        if kernel not in ("gathered", "flex"):
            raise ValueError(f"attention.kernel must be gathered or flex, got {kernel!r}")
        self.kernel = kernel
        self.latest: BlockMask | None = None

    def mix(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pos: Position,
        positions: Tensor,
        state: State | None,
    ) -> tuple[Tensor, State | None]:
        possible = state is None and q.device.type != "cpu" and not (self.training and self.dropout)
        if self.kernel == "flex" and possible:
            return self.flex(q, k, v, pos), None
        return self.gathered(q, k, v, pos, state)

    @abstractmethod
    def gathered(
        self, q: Tensor, k: Tensor, v: Tensor, pos: Position, state: State | None
    ) -> tuple[Tensor, State | None]:
        """`mix`, each block of queries over the keys gathered for it."""

    @abstractmethod
    def rule(self, length: int, device: torch.device) -> Rule:
        """Which keys a query sees in a sequence of `length` tokens."""

    def flex(self, q: Tensor, k: Tensor, v: Tensor, pos: Position) -> Tensor:
        """`mix` of a whole sequence, q (B,H,T,D), k and v (B,Hkv,T,D) -> (B,H,T,D)."""
        length = q.shape[2]
        bias = distance_bias(pos, torch.arange(length, device=q.device))  # (H,T)

        def biased(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            assert bias is not None
            return score + bias[h, (i - j).clamp(min=0)]

        # On a CPU it has values and no gradients: enough to be held against the rule by the tests.
        attend = flex_attention if q.device.type == "cpu" else compiled()
        return attend(
            q.type_as(v),  # a QK-norm may have made them wider under autocast
            k.type_as(v),
            v,
            score_mod=None if bias is None else biased,
            block_mask=self.block_mask(length, q.device),
            scale=self.scale,
            enable_gqa=self.n_heads != self.n_kv_heads,
        )

    def block_mask(self, length: int, device: torch.device) -> BlockMask:
        """The pattern for a sequence of `length` tokens; the latest is kept."""
        made = self.latest
        known = made is not None and made.seq_lengths == (length, length)
        if made is None or not known or made.kv_num_blocks.device != device:
            made = self.latest = new_block_mask(self.rule, length, device)
        return made


def new_block_mask(
    rule: Callable[[int, torch.device], Rule], length: int, device: torch.device
) -> BlockMask:
    # Even if validation is the first to ask: training, too, will use it.
    with torch.inference_mode(False):
        sees = rule(length, device)
        return create_block_mask(
            lambda b, h, i, j: sees(i, j), None, None, length, length, device=device
        )


@cache
def compiled() -> Callable[..., Any]:
    """FlexAttention is a kernel only when compiled; by itself it writes all T×T scores."""
    return torch.compile(flex_attention)
