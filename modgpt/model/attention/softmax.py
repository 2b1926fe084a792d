"""What softmax attentions share: sinks, a soft cap of the scores, and the kernel."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.kernels import attention_products as products
from modgpt.model.attention.base import Attention
from modgpt.model.init import Initializer


def softmax_weights(scores: Tensor, bias: Tensor, sink: Tensor | None, softcap: float | None) -> Tensor:
    """The weights of one query's keys, (n,) -> (n,): softmax(c·tanh(scores/c) + bias).

    A sink is the score of a key without a value. Its weight is not returned, so that the others sum to
    less than 1.
    """
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores + bias
    if sink is None:
        return scores.softmax(-1)
    return torch.cat([scores, sink[None]]).softmax(-1)[:-1]


def sink_of_each_head(x: Tensor, *, sinks: nn.Parameter | None) -> dict[str, Tensor]:
    """The sink of each head, the same for all tokens: (B,T,C) -> (B,H,T)."""
    return {} if sinks is None else {"sink": sinks[None, :, None].expand(len(x), -1, x.shape[1])}


class SoftmaxAttention(Attention):
    """Base of the attentions that weight values by a softmax over scores.

    Args:
        sinks: give each head a learned score that takes part in the softmax and has no value, so that a
            query may attend to nothing (gpt-oss, 2025; "attention sinks": Xiao et al. 2023). They start
            at 0.
        softcap: c, which makes the scores c·tanh(scores/c), before any bias (Gemma 2, 2024, section 2);
            None to leave them alone.

    Raises:
        ValueError: `softcap` is not positive.
    """

    gates_definition = staticmethod(sink_of_each_head)
    has_scores = True

    def __init__(self, *, sinks: bool = False, softcap: float | None = None, **base: Any) -> None:
        super().__init__(**base)
        if softcap is not None and not softcap > 0:  # also NaN
            raise ValueError(f"attention.softcap must be positive, got {softcap}; null leaves it out")
        self.softcap = softcap
        self.sinks = nn.Parameter(torch.zeros(self.n_heads)) if sinks else None

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        allowed: Tensor | None,
        bias: Tensor | None,
        is_causal: bool = False,
    ) -> Tensor:
        """softmax(scores + bias) V over the allowed keys, by the kernel that is fastest here.

        Args:
            q: (B,H,Tq,D). k, v: (B,Hkv,Tk,D).
            allowed: (Tq,Tk) of bool, None where every key is.
            bias: (H,Tq,Tk) or (B,H,Tq,Tk) added to the scores, or None.
            is_causal: stands for the lower triangular `allowed` where there is no bias, and lets the
                kernel skip what it hides.
        """
        by_scores = self.sinks is not None or self.softcap is not None
        if by_scores and is_causal:
            allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        mask = allowed
        if bias is not None:
            mask = bias if allowed is None else bias.masked_fill(~allowed, float("-inf"))
            mask = mask.to(q.dtype)
        if by_scores:
            return self.attend_by_scores(q, k, v, mask)
        kernel = products if products.is_faster(q, k) else F
        return kernel.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=is_causal,
            scale=self.scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )

    def attend_by_scores(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """The same with sinks or a soft cap, which no kernel of PyTorch knows: scores are written."""
        if q.shape[1] != k.shape[1]:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        scores = self.capped(q @ k.mT * self.scale)
        if mask is not None:
            hidden = mask.dtype == torch.bool
            scores = scores.masked_fill(~mask, float("-inf")) if hidden else scores + mask
        if self.sinks is not None:
            column = self.sinks[:, None, None].expand(*scores.shape[:-1], 1)  # (B,H,Tq,1)
            scores = torch.cat([scores, column.type_as(scores)], dim=-1)
        weights = scores.softmax(-1)[..., : k.shape[2]]
        return F.dropout(weights, self.dropout, self.training).type_as(v) @ v

    def capped(self, scores: Tensor) -> Tensor:
        """c·tanh(scores/c)."""
        return scores if self.softcap is None else self.softcap * torch.tanh(scores / self.softcap)

    def reset_parameters(self, init: Initializer) -> None:
        super().reset_parameters(init)
        if self.sinks is not None:
            nn.init.zeros_(self.sinks)
