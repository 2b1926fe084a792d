"""Softmax attention of blocks of queries, each block over the few sets of keys gathered for it.

Legend: N blocks of queries, R queries in a block, S keys in a set; g heads of keys, each shared by h
heads of queries, H = g·h.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt.model.attention.softmax import SoftmaxAttention
from modgpt.model.pos.base import Position


@dataclass
class Keys:
    """One set of keys with their values.

    Attributes:
        k, v: (B,g,S,D), the same for all queries; (B,g,N,S,D), other ones per block of queries; or
            (B,g,R,S,D), other ones per place within a block.
        per: which of these.
        distance: i−j in tokens, (N,R,S), or 1 for a dimension along which nothing changes.
        allowed: which keys a query sees, likewise.
    """

    k: Tensor
    v: Tensor
    per: Literal["all", "block", "place"]
    distance: Tensor
    allowed: Tensor

    def product(self, x: Tensor, y: Tensor) -> Tensor:
        """Rows of queries times what belongs to the keys: x (B,g,N,h,R,·), y like k -> (B,g,N,h,R,·)."""
        if self.per == "all":
            return (x.flatten(2, 4) @ y).unflatten(2, x.shape[2:5])
        if self.per == "block":
            return (x.flatten(3, 4) @ y).unflatten(3, x.shape[3:5])
        return (x.movedim(4, 2).flatten(3, 4) @ y).unflatten(3, x.shape[2:4]).movedim(2, 4)


def in_blocks(x: Tensor, size: int, before: int = 0) -> Tensor:
    """(B,·,T,D) -> (B,·,N,size,D), with `before` zeros in front and what the last block lacks behind."""
    after = -(before + x.shape[2]) % size
    return F.pad(x, (0, 0, before, after)).unflatten(2, (-1, size))


def softmax_over(q: Tensor, sets: Sequence[Keys], pos: Position, of: SoftmaxAttention) -> Tensor:
    """softmax(scale·QKᵀ + bias) V, one softmax over the keys of all sets together.

    The scores are written to memory: one for each query and key of a set, and no more than those.

    Args:
        q: (B,H,N,R,D).
        sets: at least two: with one, code that PyTorch 2.13 compiles for a CPU has wrong gradients. No
            two of them hold the same key of a query, and one holds its own.
        pos: gives the bias.
        of: the attention, with its scale, soft cap, sinks and dropout.

    Returns: (B,H,N,R,D).
    """
    n_kv_heads = sets[0].k.shape[1]
    heads = (n_kv_heads, q.shape[1] // n_kv_heads)
    q = q * of.scale
    q = q.unflatten(1, heads).transpose(2, 3)  # (B,g,N,h,R,D)
    scores = []
    for keys in sets:
        score = of.capped(keys.product(q, keys.k.mT))  # (B,g,N,h,R,S)
        bias = distance_bias(pos, keys.distance)  # (H,N,R,S)
        if bias is not None:
            score = score + bias.unflatten(0, heads).transpose(1, 2)
        scores.append(score.masked_fill(~keys.allowed.unsqueeze(1), float("-inf")))
    sizes = [score.shape[-1] for score in scores]
    if of.sinks is not None:
        column = of.sinks.view(heads[0], 1, heads[1], 1, 1).expand(*scores[0].shape[:-1], 1)
        scores.append(column.type_as(scores[0]))
    weights = torch.cat(scores, dim=-1).softmax(-1)[..., : sum(sizes)]
    weights = F.dropout(weights, of.dropout, of.training).to(sets[0].v.dtype)
    parts = weights.split(sizes, dim=-1)
    mixed = [keys.product(part, keys.v) for keys, part in zip(sets, parts, strict=True)]
    return sum(mixed[1:], start=mixed[0]).transpose(2, 3).flatten(1, 2)


def distance_bias(pos: Position, distance: Tensor) -> Tensor | None:
    """The bias of scores at the given distances, (…) -> (H,…), or None.

    A bias depends on i−j alone, so that of a query at position i−j and a key at 0 will do.
    """
    bias = pos.score_bias(distance.flatten(), distance.new_zeros(1))  # (H,·,1)
    return None if bias is None else bias.squeeze(-1).unflatten(1, distance.shape)
