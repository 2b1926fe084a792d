"""Mamba-2: a state that fades at a rate the text decides, in the layer of its paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.model.attention.base import Attention, gated
from modgpt.model.attention.gated_delta import chunks, faded, reset_decay, segment_sums
from modgpt.model.attention.short_convolution import ConvolvedState, ShortConvolution
from modgpt.model.init import Initializer
from modgpt.model.norm.rmsnorm import RMSNorm
from modgpt.model.pos.base import DefinedPosition, Position
from modgpt.model.precision import wide, wide_dtype
from modgpt.model.state import State


def selective_state_space(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pos: DefinedPosition,
    alpha: Tensor,
    step: Tensor,
    skip: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """S ← αS + Δkvᵀ, y = Sᵀq + dv, token by token.

    One head of one sequence: q and k (T,N), v (T,P) -> (T,P), and the state after them. The paper calls
    q, k and v C, B and x. α, Δ and d (T,) come from `decay_and_step`.
    """
    q, k = pos.rotate(q), pos.rotate(k)
    s, rows = q.new_zeros(q.shape[1], v.shape[1]), []
    for t in range(len(q)):
        s = alpha[t] * pos.decay() * s + step[t] * k[t][:, None] @ v[t][None, :]
        rows.append(q[t] @ s + skip[t] * v[t])
    return torch.stack(rows), {"s": s}


def decay_and_step(
    x: Tensor, *, steps: nn.Linear, a_log: Tensor, dt_bias: Tensor, skip: Tensor
) -> dict[str, Tensor]:
    """Δₜ = softplus(xₜW_Δ + b), αₜ = exp(−AΔₜ), and d, the same for all t: (B,T,C) -> (B,H,T)."""
    step = torch.log1p(torch.exp(steps(x).transpose(1, 2) + dt_bias[:, None]))  # (B,H,T)
    alpha = torch.exp(-a_log.exp()[:, None] * step)
    return {"alpha": alpha, "step": step, "skip": skip[:, None].expand_as(step)}


def gated_and_normed(
    y: Tensor,
    x: Tensor,
    *,
    z: nn.Linear,
    out_norm: Callable[[Tensor], Tensor],
    output_gate: nn.Linear | None,
    gate_is_silu: bool,
) -> Tensor:
    """norm(y ⊙ SiLU(xW_z)), one norm over all heads: y (B,T,H,P), x (B,T,C) -> (B,T,H,P)."""
    gate = z(x)
    y = out_norm(y.flatten(2) * gate * torch.sigmoid(gate)).unflatten(2, y.shape[2:])
    return gated(y, x, output_gate=output_gate, gate_is_silu=gate_is_silu)


@dataclass(kw_only=True)
class StateSpace(ConvolvedState):
    """The memory of all past tokens, in fp32: s (B,H,N,P), keys by values."""

    s: Tensor


class Mamba2Attention(Attention):
    """Sₜ = αₜSₜ₋₁ + Δₜkₜvₜᵀ, yₜ = Sₜᵀqₜ + d·vₜ, in the layer of Mamba-2.

    Source: Dao & Gu 2024, "Transformers are SSMs" (Mamba-2), sections 5 to 7. In the words of attention
    C is the query, B the key and x the value: a linear attention without a denominator, whose state
    fades. Its layer, from x (B,T,C):
      - q, k and v are projected, and go through a short convolution with a bias, then SiLU;
      - Δₜ = softplus(xₜW_Δ + b), one per head, is how strongly a token is written, and
        αₜ = exp(−AΔₜ) with A > 0 how much of the state stays;
      - d·v, one number d per head, goes past the state;
      - what is read is multiplied by SiLU(xW_z), then normed over all heads together.
    A and b start as in `gated_delta`, by Mamba-2's code, and d at 1.

    Heads: v has H of width P = `head_dim`. q and k have Hkv of width N = `d_state`, each shared by H/Hkv
    heads (the paper's groups and "grouped-value attention"); the YAML has one, as the paper.

    Training goes by chunks (`mix_chunks`); decoding is the same with chunks of one token. RoPE rotates q
    and k. ALiBi: its factor e^(−m) per token multiplies α.

    Differences from the paper's layer: v is as wide as the model unless `head_dim` says otherwise (2·C/H
    there), N is `head_dim` unless `d_state` says otherwise (64 to 256 there), and with several groups
    its code norms each group by itself.

    Cost per token and head: 4·N·P FLOPs as a recurrence and 2·C for Δ; N·P numbers of state at any
    length, and the inputs of the convolution. W_z has C·H·P weights, which other options have not.
    Dropout acts on the output alone: there are no weights to drop.

    Args:
        d_state: N; None for `head_dim`.
        chunk: tokens per chunk; the work inside a chunk grows with it, the number of chunks shrinks.
        conv: width of the short convolution, before QK-norm and rotation; 0 for none.
        out_norm: makes the norm behind the gate.

    Raises:
        ValueError: chunk < 1, d_state < 1 or conv < 0.
    """

    definition = staticmethod(selective_state_space)
    gates_definition = staticmethod(decay_and_step)
    gated_definition = staticmethod(gated_and_normed)
    variants = ({"chunk": 4}, {"chunk": 1}, {"chunk": 64, "conv": 0}, {"chunk": 4, "d_state": 6})
    refuses: ClassVar = {"scale": "attention=mamba2 has no factor of the scores"}

    def __init__(
        self,
        *,
        d_state: int | None = None,
        chunk: int = 64,
        conv: int = 4,
        out_norm: Callable[[int], nn.Module] = RMSNorm,
        **base: Any,
    ) -> None:
        if d_state is not None and d_state < 1:
            raise ValueError(f"attention.d_state must be at least 1, got {d_state}")
        if chunk < 1:
            raise ValueError(f"attention.chunk must be at least 1, got {chunk}")
        self.d_state, self.chunk = d_state, chunk  # the base asks for the shapes of the heads
        super().__init__(**base)
        d_model, width = self.qkv.in_features, self.n_heads * self.head_dim
        self.convolution = ShortConvolution.of_width(conv, self.qkv.out_features, bias=True)
        self.steps = nn.Linear(d_model, self.n_heads, bias=False)  # W_Δ; its bias is b
        self.a_log = nn.Parameter(torch.zeros(self.n_heads))  # log A
        self.dt_bias = nn.Parameter(torch.zeros(self.n_heads))  # b
        self.skip = nn.Parameter(torch.ones(self.n_heads))  # d
        self.z = nn.Linear(d_model, width, bias=False)
        self.out_norm = out_norm(width)

    def shapes_of_heads(self) -> Sequence[tuple[int, int]]:
        """Few heads of queries and keys, as wide as the state; values are the many."""
        few = self.n_kv_heads, self.head_dim if self.d_state is None else self.d_state
        return few, few, (self.n_heads, self.head_dim)

    def project(
        self, x: Tensor, pos: Position, positions: Tensor, state: State | None = None
    ) -> dict[str, Tensor]:
        """As in the base, and of each head: log α and Δ (B,H,T,1)."""
        # Contiguous, for the compiler is wrong about the strides of softplus' gradient otherwise.
        raw = wide(self.steps(x)).transpose(1, 2).contiguous().unsqueeze(-1)  # (B,H,T,1)
        rate, bias = (wide(p)[:, None, None] for p in (self.a_log.exp(), self.dt_bias))  # (H,1,1)
        step = F.softplus(raw + bias)
        return super().project(x, pos, positions, state) | {"log_alpha": -rate * step, "step": step}

    def mix(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pos: Position,
        positions: Tensor,
        state: State | None,
        *,
        log_alpha: Tensor,
        step: Tensor,
        inputs: Tensor | None = None,
    ) -> tuple[Tensor, State | None]:
        dtype, length = v.dtype, v.shape[2]
        # A sum over thousands of tokens loses too much in bf16.
        with torch.autocast(q.device.type, enabled=False):
            q, k, v = wide(q), wide(k), wide(v)
            memory = self.initial_state(q.shape[0], 0) if state is None else state
            assert isinstance(memory, StateSpace)
            # Tokens of zeros fill the last chunk: with α = 1 they leave the state as it is.
            parts = chunks((q, k, step * v, faded(log_alpha, pos)), self.chunk)
            y, s = mix_chunks(memory.s, *parts)
            y = y[:, :, :length] + wide(self.skip)[:, None, None] * v
        return y.to(dtype), None if state is None else StateSpace(s=s, inputs=inputs)

    def gated(self, y: Tensor, x: Tensor) -> Tensor:
        """Times SiLU(xW_z), then normed over all heads: (B,T,H,P)."""
        normed = self.out_norm(y.flatten(2) * F.silu(self.z(x)))
        return super().gated(normed.unflatten(2, (self.n_heads, -1)), x)

    def initial_state(self, batch_size: int, capacity: int) -> StateSpace:
        shape = (batch_size, self.n_heads, self.shapes[0][1], self.head_dim)
        s = self.qkv.weight.new_zeros(shape, dtype=wide_dtype(self.qkv.weight.dtype))
        return StateSpace(s=s, inputs=self.convolution and self.convolution.no_past(batch_size))

    def mixing_flops(self, length: int) -> float:
        return self.n_heads * 4 * self.shapes[0][1] * self.head_dim  # kvᵀ and Sᵀq

    def state_size(self, length: int) -> int:
        inputs = self.convolution.state_size() if self.convolution is not None else 0
        return self.n_heads * self.shapes[0][1] * self.head_dim + inputs

    @property
    def projections(self) -> list[nn.Linear]:
        return [*super().projections, self.steps, self.z]

    def reset_parameters(self, init: Initializer) -> None:
        super().reset_parameters(init)
        reset_decay(init, self.a_log, self.dt_bias)
        nn.init.ones_(self.skip)


def mix_chunks(s: Tensor, q: Tensor, k: Tensor, v: Tensor, log_alpha: Tensor) -> tuple[Tensor, Tensor]:
    """M chunks of c tokens: q, k (B,Hkv,M,c,N), v (B,H,M,c,P) times Δ, log α (B,H,M,c,1).

    Returns (B,H,M·c,P), and the state after them, s (B,H,N,P) having been the one before. Inside a chunk
    (QKᵀ⊙L)V, where Lᵢⱼ is the product of α of tokens j+1 … i; between chunks the same with chunks in the
    place of tokens. Source: Dao & Gu 2024, section 6 and listing 1.
    """
    log_alpha = log_alpha.squeeze(-1)
    within = segment_sums(log_alpha).exp()  # L (B,H,M,c,c), zero where j > i
    since_start = log_alpha.cumsum(-1).exp().unsqueeze(-1)  # (B,H,M,c,1)
    shared = v.shape[1] // q.shape[1]
    scores, q, k = (x.repeat_interleave(shared, dim=1) for x in (q @ k.mT, q, k))
    written = k.mT @ (within[..., -1, :, None] * v)  # (B,H,M,N,P), faded to the end of the chunk
    # What came before, and what each chunk has written, faded to the beginning of every later chunk.
    between = segment_sums(F.pad(log_alpha.sum(-1), (1, 0))).exp()  # (B,H,M+1,M+1)
    every = torch.cat([s.unsqueeze(2), written], dim=2)
    states = (between @ every.flatten(3)).view_as(every)  # (B,H,M+1,N,P)
    y = since_start * (q @ states[:, :, :-1]) + scores * within @ v
    return y.flatten(2, 3), states[:, :, -1].clone()  # a view would keep all of them in memory
