"""What all attentions share: projections, heads, QK-norm; and softmax over the keys within reach."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.model.cost import Cost, count_parameters
from modgpt.model.pos.base import Position
from modgpt.model.state import State

LONGEST_BY_PRODUCTS = 1024  # keys
SCORES_AT_ONCE = 2**20  # what a processor's cache has room for


class Attention(nn.Module, ABC):
    """Base of every attention: projects to heads, leaves the mixing of tokens to the option.

    An option implements `mix`, `initial_state`, `mixing_flops` and `state_size`. Causality lives in
    `mix` and nowhere else.

    Legend: B batch, T tokens, C model width, H query heads, Hkv key and value heads, D head width.

    Args:
        d_model: model width C.
        n_heads: query heads H.
        layer: index of the layer, for options that differ from layer to layer.
        dropout: probability of dropping an attention weight (softmax options) or an output element.
        n_kv_heads: key and value heads Hkv, each shared by H/Hkv query heads (grouped-query attention,
            Ainslie et al. 2023; 1 is multi-query, Shazeer 2019); None for H.
        head_dim: head width D; None for C/H.
        bias: give the projections a bias.
        out_bias: the same for the projection of the output; None for `bias`.
        scale: factor of the scores; None for 1/√D.
        qk_norm: makes the norm of queries and keys, before any rotation (Henry et al. 2020).
        qk_norm_over: what one norm is over: `head`, called with D and shared by the heads (Qwen3), or
            `width`, called with H·D or Hkv·D (OLMo 2).

    Raises:
        ValueError: C is not divisible by H, H not by Hkv, a size is below 1, or `qk_norm_over` is
            neither.
    """

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        layer: int = 0,
        dropout: float = 0.0,
        n_kv_heads: int | None = None,
        head_dim: int | None = None,
        bias: bool = False,
        out_bias: bool | None = None,
        scale: float | None = None,
        qk_norm: Callable[[int], nn.Module] = nn.Identity,
        qk_norm_over: Literal["head", "width"] = "head",
    ) -> None:
        super().__init__()
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        if head_dim is None:
            if d_model % n_heads:
                raise ValueError(
                    f"model.d_model={d_model} is not divisible by model.n_heads={n_heads}: "
                    f"choose a multiple of {n_heads}, or set attention.head_dim"
                )
            head_dim = d_model // n_heads
        if n_kv_heads < 1 or n_heads % n_kv_heads:
            raise ValueError(f"attention.n_kv_heads={n_kv_heads} must divide model.n_heads={n_heads}")
        if head_dim < 1:
            raise ValueError(f"attention.head_dim must be at least 1, got {head_dim}")
        if qk_norm_over not in ("head", "width"):
            raise ValueError(f"attention.qk_norm_over must be head or width, got {qk_norm_over!r}")
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, head_dim
        self.layer, self.scale, self.dropout = layer, scale, dropout
        self.qkv = nn.Linear(d_model, (n_heads + 2 * n_kv_heads) * head_dim, bias=bias)
        # Rows of the single projections, for optimizers that treat each by itself (Muon).
        self.fused = {"qkv.weight": [n * head_dim for n in (n_heads, n_kv_heads, n_kv_heads)]}
        self.out_bias = bias if out_bias is None else out_bias
        self.out = nn.Linear(n_heads * head_dim, d_model, bias=self.out_bias)
        self.qk_norm_over = qk_norm_over
        over_width = qk_norm_over == "width"
        self.q_norm, self.k_norm = (
            qk_norm(heads * head_dim if over_width else head_dim) for heads in (n_heads, n_kv_heads)
        )

    def forward(
        self, x: Tensor, pos: Position, positions: Tensor, state: State | None = None
    ) -> tuple[Tensor, State | None]:
        """Mix each token with those before it.

        Args:
            x: (B,T,C).
            pos: the model's positional encoding.
            positions: (T,) positions of x, consecutive.
            state: what came before x, None for nothing.

        Returns:
            (B,T,C), and the state after x (None if none was given).
        """
        q, k, v = self.project(x, pos, positions)
        y, state = self.mix(q, k, v, pos, positions, state)
        y = self.out(y.transpose(1, 2).flatten(2))  # (B,H,T,D) -> (B,T,H·D) -> (B,T,C)
        return F.dropout(y, self.dropout) if self.training else y, state

    def project(self, x: Tensor, pos: Position, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B,T,C) -> q (B,H,T,D), k and v (B,Hkv,T,D), q and k normed and rotated."""
        heads = self.qkv(x).view(*x.shape[:2], -1, self.head_dim).transpose(1, 2)  # (B,H+2Hkv,T,D)
        qk, v = heads.split_with_sizes([self.n_heads + self.n_kv_heads, self.n_kv_heads], dim=1)
        return *self.norm_and_rotate(qk, pos, positions), v

    def norm_and_rotate(self, qk: Tensor, pos: Position, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Norm first, so that rotation keeps the norm's scale; qk (B,H+Hkv,T,D) -> q, k."""
        # Queries and keys are rotated in one call: half as many small operations.
        return self.split(pos.rotate(self.normed(qk), positions))

    def normed(self, qk: Tensor) -> Tensor:
        """QK-norm of (B,H+Hkv,T,D), queries and keys with weights of their own."""
        if isinstance(self.q_norm, nn.Identity):
            return qk
        q, k = self.split(qk)
        if self.qk_norm_over == "head":
            return torch.cat([self.q_norm(q), self.k_norm(k)], dim=1)
        q, k = (x.transpose(1, 2).flatten(2) for x in (q, k))  # (B,T,·D)
        both = torch.cat([self.q_norm(q), self.k_norm(k)], dim=2)
        return both.unflatten(2, (-1, self.head_dim)).transpose(1, 2)

    def split(self, qk: Tensor) -> tuple[Tensor, Tensor]:
        """(B,H+Hkv,T,D) -> q (B,H,T,D), k (B,Hkv,T,D)."""
        q, k = qk.split_with_sizes([self.n_heads, self.n_kv_heads], dim=1)
        return q, k

    @abstractmethod
    def mix(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pos: Position,
        positions: Tensor,
        state: State | None,
    ) -> tuple[Tensor, State | None]:
        """q (B,H,T,D), k and v (B,Hkv,T,D) -> (B,H,T,D) and the state after them."""

    @abstractmethod
    def initial_state(self, batch_size: int, capacity: int) -> State:
        """The state before the first token, with room for `capacity` tokens where it grows."""

    @abstractmethod
    def mixing_flops(self, length: int) -> float:
        """FLOPs of `mix` per token, averaged over `length` tokens."""

    @abstractmethod
    def state_size(self, length: int) -> int:
        """Numbers in the state of one sequence after `length` tokens."""

    @property
    def reach(self) -> int | None:
        """How many of the last keys a query can see, None for all of them."""
        return None

    def cost(self, length: int) -> Cost:
        """Declared cost at sequence length `length`."""
        n = count_parameters(self)
        projections = 2 * (self.qkv.weight.numel() + self.out.weight.numel())
        flops = projections + self.mixing_flops(length)
        return Cost(n, n, flops, self.state_size(length))

    def reset_parameters(self, std: float, residual_std: float) -> None:
        """Normal weights: `std` for q, k and v, `residual_std` for the output; biases zero."""
        nn.init.normal_(self.qkv.weight, std=std)
        nn.init.normal_(self.out.weight, std=residual_std)
        for linear in (self.qkv, self.out):
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)


def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    allowed: Tensor | None,
    bias: Tensor | None,
    scale: float | None,
    dropout: float,
    is_causal: bool = False,
) -> Tensor:
    """softmax(scale·QKᵀ + bias) V over the allowed keys, through `F.scaled_dot_product_attention`.

    Args:
        q: (B,H,Tq,D). k, v: (B,Hkv,Tk,D).
        allowed: (Tq,Tk) of bool, None where every key is.
        bias: (H,Tq,Tk) added to the scores, or None.
        scale: factor of the scores, None for 1/√D.
        dropout: probability of dropping a weight.
        is_causal: stands for the lower triangular `allowed` where there is no bias, and lets the
            kernel skip what it hides.
    """
    mask = allowed
    if bias is not None:
        mask = bias if allowed is None else bias.masked_fill(~allowed, float("-inf"))
        mask = mask.to(q.dtype)
    slow_kernel = q.dtype == torch.bfloat16 and q.device.type == "cpu" and q.requires_grad
    if slow_kernel and k.shape[2] <= LONGEST_BY_PRODUCTS:
        return by_products(q, k, v, mask, scale, dropout, is_causal)
    return F.scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=is_causal,
        scale=scale,
        enable_gqa=q.shape[1] != k.shape[1],
    )


def by_products(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float | None,
    dropout: float,
    is_causal: bool,
) -> Tensor:
    """Softmax attention as two matrix products.

    In bf16 the CPU's fused kernel takes up to six times as long backwards on short windows. On long ones
    it is ahead, for it does not write the T×T scores to memory. Here they are made for so many sequences
    at a time as leaves them in the cache.
    """
    _, h, n, d = q.shape
    if k.shape[1] != h:
        k, v = (x.repeat_interleave(h // k.shape[1], dim=1) for x in (k, v))
    if mask is None:
        mask = q.new_full((n, k.shape[2]), float("-inf")).triu(1) if is_causal else q.new_zeros(())
    elif mask.dtype == torch.bool:
        mask = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, float("-inf"))
    alpha = d**-0.5 if scale is None else scale

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        added = mask.expand(len(q), h, n, k.shape[2]).flatten(0, 1)  # (B·H,Tq,Tk)
        scores = torch.baddbmm(added, q.flatten(0, 1), k.flatten(0, 1).mT, alpha=alpha)
        weights = F.dropout(scores.softmax(-1), dropout)
        return (weights @ v.flatten(0, 1)).unflatten(0, (-1, h))

    sequences = max(1, SCORES_AT_ONCE // (h * n * k.shape[2]))
    if sequences >= len(q):
        return attend(q, k, v)
    return torch.cat(
        [attend(*part) for part in zip(*(x.split(sequences) for x in (q, k, v)), strict=True)]
    )
