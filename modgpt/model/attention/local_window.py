"""Causal softmax attention over a sliding window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modgpt.model.attention.softmax import SoftmaxAttention, softmax_weights
from modgpt.model.pos.base import DefinedPosition, Position
from modgpt.model.state import State


def local_window_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pos: DefinedPosition,
    sink: Tensor | None = None,
    *,
    scale: float,
    softcap: float | None,
    window: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    """softmax(scale·QKᵀ + bias) V, query i over the keys j with 0 ≤ i−j < W.

    One head of one sequence: q, k, v (T,D) -> (T,D), and the state after them.
    """
    q, k, rows = pos.rotate(q), pos.rotate(k), []
    for i in range(len(q)):
        seen = [j for j in range(i + 1) if i - j < window]
        scores, bias = scale * q[i] @ k[seen].T, pos.bias([i - j for j in seen])
        rows.append(softmax_weights(scores, bias, None if sink is None else sink[i], softcap) @ v[seen])
    return torch.stack(rows), {"k": k[-window:], "v": v[-window:]}


@dataclass
class RollingCache(State):
    """Keys and values of the last tokens, (B,Hkv,n,D) with n up to the window W."""

    k: Tensor
    v: Tensor


class LocalWindowAttention(SoftmaxAttention):
    """softmax(QKᵀ/√D + bias) V, each query i over the keys j with 0 ≤ i−j < W.

    Source: Beltagy et al. 2020, "Longformer", section 3.1, causal as in Mistral 7B (2023): the window
    counts the token itself. Queries are taken in blocks of W; the keys of one block all lie in the block
    and the one before it, so that the work is 2·W scores per query whatever T is.

    Cost per token and head: at most 4·D·W FLOPs, 2·W·D numbers of cache.

    Args:
        window: W.

    Raises:
        ValueError: W < 1.
    """

    definition = staticmethod(local_window_attention)
    variants = (
        {"window": 4},
        {"window": 1},
        {"window": 64},
        {"window": 4, "sinks": True, "softcap": 2.0, "output_gate": "head"},
    )

    def __init__(self, *, window: int = 32, **base: Any) -> None:
        super().__init__(**base)
        if window < 1:
            raise ValueError(f"attention.window must be at least 1, got {window}")
        self.window = window

    def mix(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pos: Position,
        positions: Tensor,
        state: State | None,
    ) -> tuple[Tensor, State | None]:
        window, length = self.window, q.shape[2]
        past = 0
        if state is not None:
            assert isinstance(state, RollingCache)
            past = state.k.shape[2]
            k, v = torch.cat([state.k, k], dim=2), torch.cat([state.v, v], dim=2)
            # What the next token can see, its own key apart, lies in the last W keys. Copied, for a view
            # would keep the keys of the whole prompt in memory.
            state = RollingCache(k=k[:, :, -window:].clone(), v=v[:, :, -window:].clone())
        # The first block sees the cache and itself, the others the block before them and themselves.
        y = self.attend_window(q[:, :, :window], k[:, :, : past + window], v[:, :, : past + window], pos)
        if length > window:
            k, v = k[:, :, past:], v[:, :, past:]
            y = torch.cat([y, self.attend_blocks(q, k, v, pos)], dim=2)
        return y, state

    def attend_blocks(self, q: Tensor, k: Tensor, v: Tensor, pos: Position) -> Tensor:
        """The queries from the second block on: q, k, v (B,·,T,D) -> (B,H,T−W,D)."""
        window = self.window
        batch, length = q.shape[0], q.shape[2]
        n_blocks = -(-length // window)
        # Padding at the end lies in the future of every real query, so no one looks at it.
        padding = (0, 0, 0, n_blocks * window - length)
        q, k, v = (torch.nn.functional.pad(x, padding) for x in (q, k, v))
        q = q[:, :, window:].unflatten(2, (-1, window))  # (B,H,N,W,D), N = n_blocks − 1
        k, v = (x.unfold(2, 2 * window, window).mT for x in (k, v))  # (B,Hkv,N,2W,D)
        # All blocks look alike, so they join the batch and share one mask of W×2W.
        q, k, v = (x.transpose(1, 2).flatten(0, 1) for x in (q, k, v))  # (B·N,·,·,D)
        y = self.attend_window(q, k, v, pos)  # (B·N,H,W,D)
        y = y.unflatten(0, (batch, -1)).transpose(1, 2).flatten(2, 3)  # (B,H,N·W,D)
        return y[:, :, : length - window]

    def attend_window(self, q: Tensor, k: Tensor, v: Tensor, pos: Position) -> Tensor:
        """Queries over the keys within their window; the last key belongs to the last query."""
        n_queries, n_keys = q.shape[2], k.shape[2]
        k_positions = torch.arange(n_keys, device=q.device)
        q_positions = k_positions[n_keys - n_queries :]
        bias = pos.score_bias(q_positions, k_positions)  # depends on differences only
        within = n_keys <= self.window  # then the window hides nothing that causality does not
        is_causal = within and bias is None and n_queries == n_keys
        distance = q_positions[:, None] - k_positions[None, :]
        allowed = (distance >= 0) & (distance < self.window)
        hides = not is_causal and not (within and n_queries == 1)
        return self.attend(q, k, v, allowed=allowed if hides else None, bias=bias, is_causal=is_causal)

    def initial_state(self, batch_size: int, capacity: int) -> RollingCache:
        empty = self.qkv.weight.new_empty((batch_size, self.n_kv_heads, 0, self.head_dim))
        return RollingCache(k=empty, v=empty)

    def mixing_flops(self, length: int) -> float:
        window = min(self.window, length)
        keys = window - window * (window - 1) / (2 * length)  # the first queries see fewer
        return 4 * self.n_heads * self.head_dim * keys

    def state_size(self, length: int) -> int:
        return 2 * self.n_kv_heads * min(length, self.window) * self.head_dim

    @property
    def reach(self) -> int:
        return self.window
