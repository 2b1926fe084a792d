"""Full causal softmax attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modgpt.model.attention.softmax import SoftmaxAttention, softmax_weights
from modgpt.model.pos.base import DefinedPosition, Position
from modgpt.model.state import State


def full_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pos: DefinedPosition,
    sink: Tensor | None = None,
    *,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """softmax(scale·QKᵀ + bias) V, each query i over all keys j ≤ i.

    One head of one sequence: q, k, v (T,D) -> (T,D), and the state after them.
    """
    q, k, rows = pos.rotate(q), pos.rotate(k), []
    for i in range(len(q)):
        seen = range(i + 1)
        scores, bias = scale * q[i] @ k[seen].T, pos.bias([i - j for j in seen])
        rows.append(softmax_weights(scores, bias, None if sink is None else sink[i], softcap) @ v[seen])
    return torch.stack(rows), {"k": k, "v": v}


@dataclass
class KVCache(State):
    """Keys and values of all tokens so far, in preallocated buffers (B,Hkv,capacity,D)."""

    k: Tensor
    v: Tensor
    length: int = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k, v (B,Hkv,T,D) behind what is there; return all that is there now."""
        start, new = self.length, k.shape[2]
        if start + new > self.k.shape[2]:
            raise ValueError(
                f"the cache has room for {self.k.shape[2]} tokens, {start + new} are needed"
            )
        self.length += new
        self.k[:, :, start : self.length] = k
        self.v[:, :, start : self.length] = v
        return self.k[:, :, : self.length], self.v[:, :, : self.length]


class FlashAttention(SoftmaxAttention):
    """softmax(QKᵀ/√D + bias) V, each query over all keys up to its own.

    Source: Vaswani et al. 2017, section 3.2; the kernel after Dao et al. 2022, "FlashAttention", which
    never writes the T×T scores to memory. `F.scaled_dot_product_attention` picks the kernel: a bias
    (pos=alibi) rules out CUDA's flash kernel, dropout the CPU's; `result.json` tells which one ran.

    Cost per token and head at length T: 4·D·(T+1)/2 FLOPs, 2·T·D numbers of cache.
    """

    definition = staticmethod(full_attention)
    variants = ({}, {"sinks": True, "softcap": 2.0}, {"output_gate": "element"})

    def mix(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pos: Position,
        positions: Tensor,
        state: State | None,
    ) -> tuple[Tensor, State | None]:
        k_positions = positions
        if state is not None:
            assert isinstance(state, KVCache)
            k, v = state.append(k, v)
            q = q.type_as(k)
            k_positions = torch.arange(state.length, device=q.device)
        bias = pos.score_bias(positions, k_positions)
        n_queries, n_keys = q.shape[2], k.shape[2]
        is_causal = bias is None and n_queries == n_keys
        # A single query is the newest token: every key there is lies in its past.
        hides = not is_causal and n_queries > 1
        allowed = k_positions[None, :] <= positions[:, None] if hides else None
        return self.attend(q, k, v, allowed=allowed, bias=bias, is_causal=is_causal), state

    def initial_state(self, batch_size: int, capacity: int) -> KVCache:
        shape = (batch_size, self.n_kv_heads, capacity, self.head_dim)
        return KVCache(k=self.qkv.weight.new_empty(shape), v=self.qkv.weight.new_empty(shape))

    def mixing_flops(self, length: int) -> float:
        keys = (length + 1) / 2  # mean over the queries t = 0 … T−1 of the t+1 keys each one sees
        return 4 * self.n_heads * self.head_dim * keys  # QKᵀ and the product with V

    def state_size(self, length: int) -> int:
        return 2 * self.n_kv_heads * length * self.head_dim
