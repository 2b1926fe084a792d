"""Softmax attention over tensors of heads, as several options use it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from modgpt.kernels import attention_products as products


def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    allowed: Tensor | None,
    bias: Tensor | None,
    scale: float,
    dropout: float,
    is_causal: bool = False,
) -> Tensor:
    """softmax(scale·QKᵀ + bias) V over the allowed keys.

    Args:
        q: (B,H,Tq,D). k, v: (B,Hkv,Tk,D).
        allowed: (Tq,Tk) of bool, None where every key is.
        bias: (H,Tq,Tk) added to the scores, or None.
        scale: factor of the scores.
        dropout: probability of dropping a weight.
        is_causal: stands for the lower triangular `allowed` where there is no bias, and lets the
            kernel skip what it hides.
    """
    mask = allowed
    if bias is not None:
        mask = bias if allowed is None else bias.masked_fill(~allowed, float("-inf"))
        mask = mask.to(q.dtype)
    kernel = products if products.is_faster(q, k) else F
    return kernel.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )
