"""Softmax attention over a fixed pattern of keys, by FlexAttention.

Reason: the kernel is made for the pattern. It skips each 128×128 block of scores in which no query sees
a key, and writes no scores to memory (Dong et al. 2024, "Flex Attention: A Programming Model for
Generating Optimized Attention Kernels", section 4, as `torch.nn.attention.flex_attention`).
Rule: where the user asks for it (`attention.kernel=flex`), for whole sequences on a GPU. On a CPU it has
no gradients, and it cannot drop attention weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

# Of positions of queries i and keys j, whether i sees j.
Rule = Callable[[Tensor, Tensor], Tensor]


class FlexAttention:
    """softmax(scale·QKᵀ + bias) V over the keys that a rule allows; the latest mask is kept."""

    def __init__(self) -> None:
        self.latest: BlockMask | None = None

    @staticmethod
    def is_possible(q: Tensor, dropping: bool) -> bool:
        """Whether this kernel can compute whole sequences of these queries."""
        return q.device.type != "cpu" and not dropping

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        rule: Callable[[int, torch.device], Rule],
        bias: Tensor | None,
        scale: float,
    ) -> Tensor:
        """q (B,H,T,D), k and v (B,Hkv,T,D) -> (B,H,T,D).

        Args:
            rule: of a length and a device; not to be changed between calls.
            bias: of the scores, by distance i−j: (H,T), or None.
            scale: factor of the scores.
        """

        def biased(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            assert bias is not None
            return score + bias[h, (i - j).clamp(min=0)]

        # On a CPU it has values and no gradients: enough to be tested.
        attend = flex_attention if q.device.type == "cpu" else compiled()
        return attend(
            q.type_as(v),  # a QK-norm may have made them wider under autocast
            k.type_as(v),
            v,
            score_mod=None if bias is None else biased,
            block_mask=self.block_mask(rule, q.shape[2], q.device),
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )

    def block_mask(
        self, rule: Callable[[int, torch.device], Rule], length: int, device: torch.device
    ) -> BlockMask:
        """The pattern for a sequence of `length` tokens."""
        made = self.latest
        known = made is not None and made.seq_lengths == (length, length)
        if made is None or not known or made.kv_num_blocks.device != device:
            made = self.latest = new_block_mask(rule, length, device)
        return made


def new_block_mask(
    rule: Callable[[int, torch.device], Rule], length: int, device: torch.device
) -> BlockMask:
    """A mask that training can use, even if validation in inference mode is the first to ask."""
    with torch.inference_mode(False):
        sees = rule(length, device)
        return create_block_mask(
            lambda b, h, i, j: sees(i, j), None, None, length, length, device=device
        )


@cache
def compiled() -> Callable[..., Any]:
    """FlexAttention as a kernel: uncompiled, it writes all T×T scores."""
    return torch.compile(flex_attention)
