"""Softmax attention of blocks of queries, each block over the few sets of keys gathered for it.

Legend: N blocks of queries, R queries in a block, S keys in a set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt.pos.base import Position


@dataclass
class Keys:
    """One set of keys with their values.

    Attributes:
        k, v: (B,Hkv,…,D).
        axes: what the dimensions `…` are, as letters of an einsum: n the block of the query, r its place
            in the block, s the key. "ns" holds S keys per block, "s" the same S keys for all.
        distance: i−j in tokens, (N,R,S), or 1 for a dimension along which nothing changes.
        allowed: which keys a query sees, likewise.
    """

    k: Tensor
    v: Tensor
    axes: str
    distance: Tensor
    allowed: Tensor


def in_blocks(x: Tensor, size: int, before: int = 0) -> Tensor:
    """(B,h,T,D) -> (B,h,N,size,D), with `before` zeros in front and what the last block lacks behind."""
    after = -(before + x.shape[2]) % size
    return F.pad(x, (0, 0, before, after)).unflatten(2, (-1, size))


def softmax_over(
    q: Tensor, sets: Sequence[Keys], pos: Position, *, scale: float | None, dropout: float
) -> Tensor:
    """softmax(scale·QKᵀ + bias) V, one softmax over the keys of all sets together.

    The scores are written to memory, N·R for each key of the sets, and no more than those.

    Args:
        q: (B,H,N,R,D).
        sets: no two of them hold the same key of a query, and one holds its own.
        pos: gives the bias.
        scale: factor of the scores, None for 1/√D.
        dropout: probability of dropping a weight.

    Returns: (B,H,N,R,D).
    """
    kv_heads = sets[0].k.shape[1]
    heads = (kv_heads, q.shape[1] // kv_heads)  # h heads of queries for each head g of keys
    q = (q * (q.shape[-1] ** -0.5 if scale is None else scale)).unflatten(1, heads)
    scores = []
    for keys in sets:
        score = torch.einsum(f"bghnrd,bg{keys.axes}d->bghnrs", q, keys.k)
        bias = distance_bias(pos, keys.distance)
        if bias is not None:
            score = score + bias.unflatten(0, heads)
        scores.append(score.masked_fill(~keys.allowed, float("-inf")))
    weights = F.dropout(torch.cat(scores, dim=-1).softmax(-1), dropout)
    parts = weights.to(sets[0].v.dtype).split([score.shape[-1] for score in scores], dim=-1)
    mixed = [
        torch.einsum(f"bghnrs,bg{keys.axes}d->bghnrd", part, keys.v)
        for part, keys in zip(parts, sets, strict=True)
    ]
    return sum(mixed[1:], start=mixed[0]).flatten(1, 2)


def distance_bias(pos: Position, distance: Tensor) -> Tensor | None:
    """The bias of scores at the given distances, (…) -> (H,…), or None.

    A bias depends on i−j alone, so that of a query at position i−j and a key at 0 will do.
    """
    bias = pos.score_bias(distance.flatten(), distance.new_zeros(1))  # (H,·,1)
    return None if bias is None else bias.squeeze(-1).unflatten(1, distance.shape)
