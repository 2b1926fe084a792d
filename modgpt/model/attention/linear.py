"""Linear attention: a softmax replaced by a kernel, a cache by a running sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt.model.attention.base import Attention
from modgpt.model.pos.base import DefinedPosition, Position
from modgpt.model.precision import wide, wide_dtype
from modgpt.model.state import State


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, pos: DefinedPosition, *, eps: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """yₜ = φ(qₜ)ᵀSₜ / φ(qₜ)ᵀzₜ, where S sums φ(k)vᵀ and z sums φ(k).

    One head of one sequence: q, k, v (T,D) -> (T,D), and the state after them.
    """
    phi_q, phi_k = F.elu(q) + 1, F.elu(k) + 1
    turned_q, turned_k = pos.rotate(phi_q), pos.rotate(phi_k)  # for the numerator alone
    width, rows = q.shape[1], []
    s, z = q.new_zeros(width, width), q.new_zeros(width)
    for t in range(len(q)):
        s = pos.decay() * s + turned_k[t][:, None] @ v[t][None, :]
        z = pos.decay() * z + phi_k[t]
        rows.append(turned_q[t] @ s / (phi_q[t] @ z[:, None] + eps))
    return torch.stack(rows), {"s": s, "z": z}


@dataclass
class LinearState(State):
    """Sums over all past keys, in fp32: s = Σ φ(k)vᵀ (B,H,D,D) and z = Σ φ(k) (B,H,D)."""

    s: Tensor
    z: Tensor


class LinearAttention(Attention):
    """yᵢ = φ(qᵢ)ᵀ Σ_{j≤i} φ(kⱼ)vⱼᵀ / φ(qᵢ)ᵀ Σ_{j≤i} φ(kⱼ), with φ(x) = elu(x) + 1.

    Source: Katharopoulos et al. 2020, "Transformers are RNNs", section 3. Training goes by chunks:
    inside a chunk (QKᵀ⊙L)V, between chunks the running sums s and z; decoding is the same with chunks
    of one token. Positions act as follows.
      - RoPE: φ(q) and φ(k) are rotated in the numerator only (Su et al. 2021, eq. 19); a rotated
        denominator could be zero or negative.
      - ALiBi: the factor e^(−m(i−j)) is a decay of both sums, s ← e^(−m)·s + φ(k)vᵀ, z likewise.

    Cost per token and head: 4·D² + 2·D FLOPs as a recurrence, D² + D numbers of state, at any length.
    Dropout acts on the output alone: there are no weights to drop.

    Args:
        chunk: tokens per chunk; the work inside a chunk grows with it, the number of sums shrinks.
        eps: added to the denominator.

    Raises:
        ValueError: chunk < 1.
    """

    definition = staticmethod(linear_attention)
    variants = ({"chunk": 4}, {"chunk": 1}, {"chunk": 64})
    refuses: ClassVar = {"scale": "numerator and denominator of attention=linear both carry it"}

    def __init__(self, *, chunk: int = 64, eps: float = 1e-6, **base: Any) -> None:
        super().__init__(**base)
        if chunk < 1:
            raise ValueError(f"attention.chunk must be at least 1, got {chunk}")
        self.chunk, self.eps = chunk, eps

    def norm_and_rotate(self, qk: Tensor, pos: Position, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Only the norm: rotation comes behind φ, and in the numerator alone."""
        return self.split(self.normed(qk))

    def mix(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pos: Position,
        positions: Tensor,
        state: State | None,
    ) -> tuple[Tensor, State | None]:
        dtype, length = v.dtype, q.shape[2]
        # Running sums over thousands of keys lose too much in bf16.
        with torch.autocast(q.device.type, enabled=False):
            q, k, v = F.elu(wide(q)) + 1, F.elu(wide(k)) + 1, wide(v)
            rotated_q, rotated_k = pos.rotate(q, positions), pos.rotate(k, positions)
            if self.n_kv_heads != self.n_heads:
                shared = self.n_heads // self.n_kv_heads
                k, v, rotated_k = (x.repeat_interleave(shared, dim=1) for x in (k, v, rotated_k))
            sums = self.initial_state(q.shape[0], 0) if state is None else state
            assert isinstance(sums, LinearState)
            decay, outputs = pos.log_decay(), []
            # All whole chunks at once, then what is left over, as one chunk that is shorter.
            whole = length - length % self.chunk
            for start, end, chunk in ((0, whole, self.chunk), (whole, length, length - whole)):
                if start < end:
                    parts = (
                        x[:, :, start:end].unflatten(2, (-1, chunk))
                        for x in (q, k, v, rotated_q, rotated_k)
                    )
                    y, sums = self.mix_chunks(sums, decay, *parts)
                    outputs.append(y)
        y = torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]
        return y.to(dtype), None if state is None else sums

    def mix_chunks(
        self,
        sums: LinearState,
        log_decay: Tensor | None,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        rotated_q: Tensor,
        rotated_k: Tensor,
    ) -> tuple[Tensor, LinearState]:
        """N chunks of c tokens, (B,H,N,c,D) each -> (B,H,N·c,D); the sums before them -> those after."""
        within, since_past, to_end, whole = decay_factors(q.shape[3], log_decay, q)
        s = running_sums(sums.s, (rotated_k * to_end).mT @ v, whole)  # (B,H,N+1,D,D)
        z = running_sums(sums.z.unsqueeze(-1), (k * to_end).sum(3).unsqueeze(-1), whole)
        scores = q @ k.mT * within  # (B,H,N,c,c), zero where j > i
        rotated = scores if rotated_q is q else rotated_q @ rotated_k.mT * within
        # Inside the chunk + before it.
        numerator = rotated @ v + (rotated_q * since_past) @ s[:, :, :-1]
        denominator = scores.sum(-1, keepdim=True) + (q * since_past) @ z[:, :, :-1]
        y = numerator / (denominator + self.eps)
        return y.flatten(2, 3), LinearState(s=s[:, :, -1], z=z[:, :, -1].squeeze(-1))

    def initial_state(self, batch_size: int, capacity: int) -> LinearState:
        shape = (batch_size, self.n_heads, self.head_dim, self.head_dim)
        s = self.qkv.weight.new_zeros(shape, dtype=wide_dtype(self.qkv.weight.dtype))
        return LinearState(s=s, z=torch.zeros_like(s[..., 0]))

    def mixing_flops(self, length: int) -> float:
        width = self.head_dim
        return self.n_heads * (4 * width**2 + 2 * width)  # φ(k)vᵀ, φ(q)ᵀs and φ(q)ᵀz

    def state_size(self, length: int) -> int:
        return self.n_heads * (self.head_dim**2 + self.head_dim)


def running_sums(before: Tensor, added: Tensor, decay: Tensor) -> Tensor:
    """Sums at the borders of N chunks: Sₙ = decay·Sₙ₋₁ + addedₙ, from S₀ = before.

    By doubling (Hillis & Steele 1986): after i rounds each holds what the last 2^i chunks added, so that
    log₂N operations on all chunks take the place of N on one.

    Args:
        before: (B,H,D,·). added: (B,H,N,D,·).
        decay: (h,1,1,1), of what came before a chunk, at its end.

    Returns: (B,H,N+1,D,·), S₀ to S_N.
    """
    sums, reach = torch.cat([before.unsqueeze(2), added], dim=2), 1
    while reach < sums.shape[2]:
        earlier = sums[:, :, :-reach] * decay**reach
        sums = torch.cat([sums[:, :, :reach], sums[:, :, reach:] + earlier], dim=2)
        reach *= 2
    return sums


def decay_factors(
    length: int, log_decay: Tensor | None, like: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What is left after the decay within a chunk of c tokens, all 1 where there is none.

    They have the device and the dtype of `like`.

    Returns, for h = H, or 1 without decay:
        within (h,1,c,c): of token j at token i, 0 where j > i;
        since_past (h,1,c,1): of what came before the chunk, at token i;
        to_end (h,1,c,1): of token j at the end of the chunk;
        whole (h,1,1,1): of what came before the chunk, at its end.
    """
    rate = (like.new_zeros(1) if log_decay is None else log_decay.to(like.dtype))[:, None, None, None]
    steps = torch.arange(length, device=like.device)[:, None]  # (c,1)
    distance = steps - steps.mT
    # Only distances i−j ≥ 0 are ever raised: e^(m·distance) into the future would overflow.
    within = (rate * distance.clamp(min=0)).exp() * (distance >= 0)
    return within, (rate * (steps + 1)).exp(), (rate * (length - 1 - steps)).exp(), (rate * length).exp()
