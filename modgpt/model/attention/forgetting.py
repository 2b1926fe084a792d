"""Full causal softmax attention with a forget gate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.model.attention.flash import KVCache
from modgpt.model.attention.softmax import SoftmaxAttention, sink_of_each_head, softmax_weights
from modgpt.model.pos.base import DefinedPosition, Position
from modgpt.model.precision import wide, wide_dtype
from modgpt.model.state import State


def forgetting_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pos: DefinedPosition,
    f: Tensor,
    sink: Tensor | None = None,
    *,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """softmax(scale·QKᵀ + bias + log F) V, each query i over all keys j ≤ i, with Fᵢⱼ = fⱼ₊₁ ⋯ fᵢ.

    One head of one sequence: q, k, v (T,D) -> (T,D), and the state after them. f (T,) comes from
    `forget_gates`.
    """
    q, k, rows = pos.rotate(q), pos.rotate(k), []
    for i in range(len(q)):
        seen = range(i + 1)
        scores, bias = scale * q[i] @ k[seen].T, pos.bias([i - j for j in seen])
        forgotten = torch.stack([f[j + 1 : i + 1].log().sum() for j in seen])
        weights = softmax_weights(scores, bias + forgotten, None if sink is None else sink[i], softcap)
        rows.append(weights @ v[seen])
    return torch.stack(rows), {"k": k, "v": v, "log_f": f.log().cumsum(0)}


def forget_gates(x: Tensor, *, forget_gate: nn.Linear, sinks: nn.Parameter | None) -> dict[str, Tensor]:
    """fₜ = sigmoid(xₜW_f + b) of each head, and its sink: (B,T,C) -> (B,H,T)."""
    f = torch.sigmoid(forget_gate(x)).transpose(1, 2)
    return {"f": f} | sink_of_each_head(x, sinks=sinks)


@dataclass
class ForgettingCache(KVCache):
    """Keys and values of all tokens so far, and the sums log f₀ + … + log fₜ (B,H,capacity) in fp32."""

    log_f: Tensor = field(kw_only=True)

    def append_gates(self, log_f: Tensor) -> Tensor:
        """Write the sums up to each token, log f (B,H,T) given; return all that are there now.

        It comes after `append`, which counts the tokens.
        """
        start = self.length - log_f.shape[2]
        sums = log_f.cumsum(2)
        if start:
            sums = sums + self.log_f[:, :, start - 1 : start]
        self.log_f[:, :, start : self.length] = sums
        return self.log_f[:, :, : self.length]


class ForgettingAttention(SoftmaxAttention):
    """softmax(QKᵀ/√D + bias + log F) V, with Fᵢⱼ = fⱼ₊₁ ⋯ fᵢ and gates fₜ = sigmoid(xₜW_f + b).

    Source: Lin et al. 2025, "Forgetting Transformer: Softmax Attention with a Forget Gate", section 3.
    Before the softmax divides by their sum, the weight of key j for query i is multiplied by the gates
    of the tokens after j, up to i. Each head has a gate per token, made of x. A gate of 0 cuts off all
    that came before its token; gates of 1 make this option `flash`. So a head decides by what it reads
    how far it looks back; ALiBi, where all gates of a head are e^(−m), fixes that beforehand. The paper
    uses no positions besides (`pos=none`). RoPE works as ever, and the bias of ALiBi is added.

    b starts at 0, as in the authors' code, and W_f is drawn as the projections to q, k and v are. So all
    gates start near 1/2, and training opens those that pay.

    log F is a difference of two sums from the start of the sequence, which are kept in fp32. Its error
    grows with them: about 0.0002 after 4,096 gates of 1/2.

    Left out of the paper's block "Pro" are the shift of keys and values by one token and the norm of the
    output. Its QK-norm and output gate are knobs of the base.

    Cost per token and head at length T: 4·D·(T+1)/2 FLOPs and 2·C for the gate; 2·T·D numbers of cache,
    and T for the gates. log F is written to memory, B·H·T² numbers, and rules out CUDA's flash kernel.
    """

    definition = staticmethod(forgetting_attention)
    gates_definition = staticmethod(forget_gates)
    variants = ({}, {"sinks": True, "softcap": 2.0}, {"output_gate": "element"})

    def __init__(self, **softmax: Any) -> None:
        super().__init__(**softmax)
        self.forget_gate = nn.Linear(self.qkv.in_features, self.n_heads)

    def project(
        self, x: Tensor, pos: Position, positions: Tensor, state: State | None = None
    ) -> dict[str, Tensor]:
        """As in the base, and the logarithm of each head's forget gates: log f (B,H,T)."""
        log_f = F.logsigmoid(wide(self.forget_gate(x))).transpose(1, 2)
        return super().project(x, pos, positions, state) | {"log_f": log_f}

    def mix(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pos: Position,
        positions: Tensor,
        state: State | None,
        *,
        log_f: Tensor,
    ) -> tuple[Tensor, State | None]:
        n_queries, k_positions = q.shape[2], positions
        if state is None:
            sums = log_f.cumsum(2)
        else:
            assert isinstance(state, ForgettingCache)
            k, v = state.append(k, v)
            q = q.type_as(k)
            sums = state.append_gates(log_f)
            k_positions = torch.arange(state.length, device=q.device)
        forgotten = sums[:, :, -n_queries:, None] - sums[:, :, None]  # (B,H,Tq,Tk)
        bias = pos.score_bias(positions, k_positions)
        bias = forgotten if bias is None else forgotten + bias
        # A single query is the newest token: every key there is lies in its past. The bias of later keys
        # is positive; `attend` hides it before anything is exponentiated.
        allowed = k_positions[None, :] <= positions[:, None] if n_queries > 1 else None
        return self.attend(q, k, v, allowed=allowed, bias=bias), state

    def initial_state(self, batch_size: int, capacity: int) -> ForgettingCache:
        weight, shape = self.qkv.weight, (batch_size, self.n_kv_heads, capacity, self.head_dim)
        sums = weight.new_empty(shape[0], self.n_heads, capacity, dtype=wide_dtype(weight.dtype))
        return ForgettingCache(k=weight.new_empty(shape), v=weight.new_empty(shape), log_f=sums)

    def mixing_flops(self, length: int) -> float:
        keys = (length + 1) / 2  # mean over the queries t = 0 … T−1 of the t+1 keys each one sees
        return 4 * self.n_heads * self.head_dim * keys  # QKᵀ and the product with V

    def state_size(self, length: int) -> int:
        return (2 * self.n_kv_heads * self.head_dim + self.n_heads) * length

    @property
    def projections(self) -> list[nn.Linear]:
        return [*super().projections, self.forget_gate]
