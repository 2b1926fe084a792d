"""Causal softmax attention over a fixed sparse pattern: what is near, and a lattice of what is far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt.model.attention.flash import KVCache
from modgpt.model.attention.gathered import Keys, in_blocks, softmax_over
from modgpt.model.attention.pattern import PatternAttention, Rule
from modgpt.model.attention.softmax import softmax_weights
from modgpt.model.pos.base import DefinedPosition, Position
from modgpt.model.state import State


def sparse_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pos: DefinedPosition,
    sink: Tensor | None = None,
    *,
    scale: float,
    softcap: float | None,
    pattern: str,
    stride: int,
    summary: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """softmax(scale·QKᵀ + bias) V over the keys of a pattern of stride l.

    One head of one sequence: q, k, v (T,D) -> (T,D), and the state after them.
    """

    def sees(i: int, j: int) -> bool:
        """Whether query i sees key j ≤ i."""
        if pattern == "strided":
            return i - j < stride or (i - j) % stride == 0
        return j // stride == i // stride or is_summary(j)

    def is_summary(j: int) -> bool:
        """Whether j is among the last c of its block."""
        return j % stride >= stride - summary

    q, k, rows = pos.rotate(q), pos.rotate(k), []
    for i in range(len(q)):
        seen = [j for j in range(i + 1) if sees(i, j)]
        scores, bias = scale * q[i] @ k[seen].T, pos.bias([i - j for j in seen])
        rows.append(softmax_weights(scores, bias, None if sink is None else sink[i], softcap) @ v[seen])
    open_block = len(q) // stride * stride  # where the block of the next token begins
    kept = [j for j in range(len(q)) if pattern == "strided" or j >= open_block or is_summary(j)]
    return torch.stack(rows), {"k": k[kept], "v": v[kept]}


@dataclass
class SummaryCache(State):
    """Of `length` tokens: the last c keys and values of every full block, then those of the open one.

    (B,Hkv,n,D) with n = c·⌊length/l⌋ + length mod l: all that the next token can see.
    """

    k: Tensor
    v: Tensor
    length: int = 0


class SparseAttention(PatternAttention):
    """softmax(QKᵀ/√D + bias) V, each query i over the keys j ≤ i of a pattern of stride l.

      - fixed: j in the block of i, ⌊j/l⌋ = ⌊i/l⌋, or among the last c of any block, j mod l ≥ l−c.
      - strided: j among the last l, i−j < l, or at a multiple of the stride, (i−j) mod l = 0.

    Two steps connect any two tokens (fixed: by way of a summary token), at T·(l + T/l) instead of T² / 2
    scores; l near √T balances both parts.

    Source: Child et al. 2019, "Generating Long Sequences with Sparse Transformers", section 4.3. The
    paper gives the two parts of a pattern to different layers or heads, or both to one "merged" head.
    Here every head is merged: one softmax over the union.

    Cost per token and head: 4·D FLOPs for each key seen, at most l + c·⌊T/l⌋ (fixed) or l + ⌊T/l⌋
    (strided). Cache: at most 2·D·(l + c·⌊T/l⌋) numbers with fixed. `strided`
    keeps every key, 2·T·D numbers: each is needed again l tokens later.

    Args:
        pattern: fixed or strided.
        stride: l.
        summary: c, of the fixed pattern alone.

    Raises:
        ValueError: no such pattern; stride < 1; summary is not in 1 … stride (fixed).
    """

    definition = staticmethod(sparse_attention)
    variants = (
        {"pattern": "fixed", "stride": 4, "summary": 2},
        {"pattern": "fixed", "stride": 1, "summary": 1},
        {"pattern": "fixed", "stride": 3, "summary": 3},
        {"pattern": "fixed", "stride": 4, "summary": 1},
        {"pattern": "fixed", "stride": 64},
        {"pattern": "strided", "stride": 4},
        {"pattern": "strided", "stride": 1},
        {"pattern": "strided", "stride": 64},
        {"pattern": "fixed", "stride": 4, "sinks": True, "softcap": 2.0},
        {"pattern": "strided", "stride": 4, "sinks": True, "softcap": 2.0},
    )

    def __init__(
        self,
        *,
        pattern: Literal["fixed", "strided"] = "fixed",
        stride: int = 16,
        summary: int = 2,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if pattern not in ("fixed", "strided"):
            raise ValueError(f"attention.pattern must be fixed or strided, got {pattern!r}")
        if stride < 1:
            raise ValueError(f"attention.stride must be at least 1, got {stride}")
        if pattern == "fixed" and not 1 <= summary <= stride:
            raise ValueError(
                f"attention.summary={summary} must lie between 1 and attention.stride={stride}: "
                "it counts tokens of a block of that many"
            )
        self.pattern, self.stride, self.summary = pattern, stride, summary

    def rule(self, length: int, device: torch.device) -> Rule:
        stride = self.stride
        if self.pattern == "fixed":
            first = stride - self.summary
            return lambda i, j: (j <= i) & ((j // stride == i // stride) | (j % stride >= first))
        return lambda i, j: (j <= i) & ((i - j < stride) | ((i - j) % stride == 0))

    def gathered(
        self, q: Tensor, k: Tensor, v: Tensor, pos: Position, state: State | None
    ) -> tuple[Tensor, State | None]:
        if self.pattern == "fixed":
            return self.mix_fixed(q, k, v, pos, state)
        start = 0
        if state is not None:
            assert isinstance(state, KVCache)
            start = state.length
            k, v = state.append(k, v)
        if q.shape[2] == 1:
            return self.strided_step(q, k, v, pos), state
        return self.strided_blocks(q, k, v, pos, start), state

    # --- fixed ------------------------------------------------------------------------------------

    def mix_fixed(
        self, q: Tensor, k: Tensor, v: Tensor, pos: Position, state: State | None
    ) -> tuple[Tensor, State | None]:
        """Each block over itself and the summaries before it, those from the state among them."""
        stride, length, device = self.stride, q.shape[2], q.device
        past = SummaryCache(k[:, :, :0], v[:, :, :0]) if state is None else state
        assert isinstance(past, SummaryCache)
        first, before = divmod(past.length, stride)  # the open block, and how many tokens it has
        own_k, kept_k = self.own_and_kept(past.k, k, first)
        own_v, kept_v = self.own_and_kept(past.v, v, first)
        if length == 1:  # a block of one query: the others of its block are not asked
            padding, size, n_own = 0, 1, before + 1
        else:
            padding, size, n_own = before, stride, stride
        q = in_blocks(q, size, padding)  # (B,H,N,R,D)
        block = torch.arange(first, first + q.shape[2], device=device)[:, None, None]  # (N,1,1)
        place = torch.arange(size, device=device)[None, :, None] + (before - padding)  # (1,R,1)

        far = torch.arange((first + q.shape[2] - 1) * self.summary, device=device)  # none sees the last
        far_block, far_place = far // self.summary, far % self.summary + stride - self.summary
        far_keys = Keys(
            kept_k[:, :, : len(far)],
            kept_v[:, :, : len(far)],
            per="all",
            distance=(block - far_block) * stride + place - far_place,
            allowed=far_block < block,
        )
        back = place - torch.arange(n_own, device=device)  # (1,R,S)
        own_keys = Keys(
            in_blocks(own_k, n_own),
            in_blocks(own_v, n_own),
            per="block",
            distance=back,
            allowed=back >= 0,
        )
        y = softmax_over(q, [far_keys, own_keys], pos, self)
        y = y.flatten(2, 3)[:, :, padding : padding + length]
        return y, None if state is None else SummaryCache(kept_k, kept_v, past.length + length)

    def own_and_kept(self, cached: Tensor, new: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Keys, or values, in the cache and new ones (B,Hkv,·,D); `first` blocks in it are full.

        Returns: all from the beginning of its open block on; what is kept of everything.
        """
        stride, n_far = self.stride, first * self.summary
        own = torch.cat([cached[:, :, n_far:], new], dim=2)
        full = own.shape[2] // stride
        blocks = own[:, :, : full * stride].unflatten(2, (full, stride))
        summaries = blocks[:, :, :, stride - self.summary :].flatten(2, 3)
        return own, torch.cat([cached[:, :, :n_far], summaries, own[:, :, full * stride :]], dim=2)

    # --- strided ----------------------------------------------------------------------------------

    def strided_blocks(self, q: Tensor, k: Tensor, v: Tensor, pos: Position, start: int) -> Tensor:
        """Queries from position `start` on, over keys from position 0 on.

        With tokens written down in rows of l, a query sees the column above it, and of its own row and
        the row before it what is less than l back.
        """
        stride, length, device = self.stride, q.shape[2], q.device
        first, before = divmod(start, stride)
        q, k, v = in_blocks(q, stride, before), in_blocks(k, stride), in_blocks(v, stride)  # (B,·,N,l,D)
        row = torch.arange(first, k.shape[2], device=device)[:, None, None]  # (N,1,1)
        place = torch.arange(stride, device=device)[None, :, None]  # (1,R,1)

        above = row - torch.arange(k.shape[2], device=device)  # (N,1,S) rows
        # Its own row is among what is near.
        column = Keys(k.transpose(2, 3), v.transpose(2, 3), "place", above * stride, above > 0)
        place_of_key = torch.arange(-stride, stride, device=device)  # of the row before, and its own
        back = place - place_of_key  # (1,R,S), S = 2l
        near = Keys(
            with_row_before(k)[:, :, first:],
            with_row_before(v)[:, :, first:],
            per="block",
            distance=back,
            allowed=(back >= 0) & (back < stride) & (row * stride + place_of_key >= 0),
        )
        y = softmax_over(q, [column, near], pos, self)
        return y.flatten(2, 3)[:, :, before : before + length]

    def strided_step(self, q: Tensor, k: Tensor, v: Tensor, pos: Position) -> Tensor:
        """The query of the last key alone: it reads the keys that it sees and no others."""
        last = k.shape[2] - 1
        near = max(0, last - self.stride + 1)
        every = torch.arange(last + 1, device=q.device)
        seen = torch.cat([every[last % self.stride : near : self.stride], every[near:]])
        return self.attend(
            q.type_as(k),
            k.index_select(2, seen),
            v.index_select(2, seen),
            allowed=None,
            bias=pos.score_bias(every[last:], seen),
        )

    # --- state and cost ---------------------------------------------------------------------------

    def initial_state(self, batch_size: int, capacity: int) -> SummaryCache | KVCache:
        fixed = self.pattern == "fixed"
        shape = (batch_size, self.n_kv_heads, 0 if fixed else capacity, self.head_dim)
        k, v = self.qkv.weight.new_empty(shape), self.qkv.weight.new_empty(shape)
        return SummaryCache(k, v) if fixed else KVCache(k, v)

    def mixing_flops(self, length: int) -> float:
        stride = self.stride
        whole, rest = divmod(length, stride)
        # Σ ⌊i/l⌋ over the queries: blocks before one's own (fixed), multiples of l back (strided).
        earlier = stride * whole * (whole - 1) / 2 + rest * whole
        if self.pattern == "fixed":
            own = whole * stride * (stride + 1) / 2 + rest * (rest + 1) / 2
            pairs = own + self.summary * earlier
        else:
            near = min(stride, length)
            pairs = near * length - near * (near - 1) / 2 + earlier
        return 4 * self.n_heads * self.head_dim * pairs / length

    def state_size(self, length: int) -> int:
        whole, rest = divmod(length, self.stride)
        tokens = self.summary * whole + rest if self.pattern == "fixed" else length
        return 2 * self.n_kv_heads * tokens * self.head_dim


def with_row_before(x: Tensor) -> Tensor:
    """Each row behind the one before it, zeros for the first: (B,h,N,l,D) -> (B,h,N,2l,D)."""
    return torch.cat([F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x], dim=3)
