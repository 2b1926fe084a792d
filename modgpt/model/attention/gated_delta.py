"""Gated delta rule: a recurrent state that fades, and that overwrites what a key held before."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.model.attention.base import Attention, gated
from modgpt.model.attention.short_convolution import ConvolvedState, ShortConvolution
from modgpt.model.init import Initializer
from modgpt.model.norm.rmsnorm import RMSNorm
from modgpt.model.pos.base import DefinedPosition, Position
from modgpt.model.precision import wide, wide_dtype
from modgpt.model.state import State

# Ranges of the initial decay, from Mamba-2's code: rates A, and steps Δ at x = 0.
RATES = (1.0, 16.0)
STEPS = (1e-3, 1e-1)


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pos: DefinedPosition,
    alpha: Tensor,
    beta: Tensor,
    *,
    scale: float,
    eps: float,
) -> tuple[Tensor, dict[str, Tensor]]:
    """S ← αS, S ← S + βk(v − Sᵀk)ᵀ, y = Sᵀq, token by token.

    One head of one sequence: q, k, v (T,D) -> (T,D), and the state after them. q and k have length 1, q
    then times `scale`. β (T,) and α, (T,1) for all of S or (T,D) for each of its rows, are gates made of
    x (`delta_gates`).
    """
    q = pos.rotate(q / (q.square().sum(1, keepdim=True) + eps).sqrt())
    k = pos.rotate(k / (k.square().sum(1, keepdim=True) + eps).sqrt())
    s, rows = q.new_zeros(q.shape[1], q.shape[1]), []
    for t in range(len(q)):
        s = alpha[t][:, None] * pos.decay() * s
        held = k[t] @ s  # what S holds under this key
        s = s + beta[t] * k[t][:, None] @ (v[t] - held)[None, :]
        rows.append(scale * q[t] @ s)
    return torch.stack(rows), {"s": s}


def delta_gates(x: Tensor, *, gates: nn.Linear, a_log: Tensor, dt_bias: Tensor) -> dict[str, Tensor]:
    """αₜ = exp(−A·softplus(xₜW_α + b)) (B,H,T,1), and βₜ = sigmoid(xₜW_β) (B,H,T), of x (B,T,C)."""
    for_alpha, for_beta = gates(x).transpose(1, 2).chunk(2, dim=1)  # (B,H,T)
    step = torch.log1p(torch.exp(for_alpha + dt_bias[:, None]))
    alpha = torch.exp(-a_log.exp()[:, None] * step)
    return {"alpha": alpha[..., None], "beta": torch.sigmoid(for_beta)}


def normed_and_gated(
    y: Tensor,
    x: Tensor,
    *,
    out_norm: Callable[[Tensor], Tensor],
    output_gate: nn.Linear | None,
    gate_is_silu: bool,
) -> Tensor:
    """What is read, y (B,T,H,D), normed per head, then times its gate made of x (B,T,C)."""
    return gated(out_norm(y), x, output_gate=output_gate, gate_is_silu=gate_is_silu)


@dataclass(kw_only=True)
class DeltaState(ConvolvedState):
    """The memory of all past tokens, in fp32: s (B,H,D,D), keys by values."""

    s: Tensor


class GatedDeltaAttention(Attention):
    """Sₜ = αₜ(I − βₜkₜkₜᵀ)Sₜ₋₁ + βₜkₜvₜᵀ, yₜ = Sₜᵀqₜ, with k of length 1, q of length 1 times `scale`.

    Source: Yang, Kautz & Hatamizadeh 2024, "Gated Delta Networks", section 3.1, whose S is the transpose
    of ours. S maps keys to values. Linear attention only ever adds kvᵀ to it. Here a token first reads
    what S holds under its key and then writes the difference: S ← αS, S ← S + βk(v − Sᵀk)ᵀ. So β = 1
    replaces what the key held, β = 0 leaves it, and α < 1 lets all of S fade. Both gates are made of x,
    one per head:
      - βₜ = sigmoid(xₜW_β);
      - αₜ = exp(−A·softplus(xₜW_α + b)) with A > 0, as in Mamba-2 (Dao & Gu 2024).
    At the start A is uniform in [1, 16] and softplus(b) log-uniform in [0.001, 0.1], the defaults of
    Mamba-2's code; W_α and W_β are drawn as the projections to q, k and v are.

    Training goes by chunks (`mix_chunks`); decoding is the same with chunks of one token. Positions act
    as follows.
      - RoPE rotates q and k. It keeps their lengths, so it does not matter which comes first.
      - ALiBi: its factor e^(−m) per token multiplies α.

    By itself the option is the rule. The paper's layer (section 3.4) is conv=4, out_norm=rmsnorm and
    output_gate=silu: a short convolution on q, k and v with SiLU behind it, and RMSNorm(y) ⊙ SiLU(xW)
    of what is read. QK-norm, where asked for, comes before the length is taken out; what a norm with one
    gain for all channels (`scalenorm`) does is undone by that.

    Cost per token and head: 6·D² FLOPs as a recurrence and 4·C for the gates; D² numbers of state, at
    any length, and the inputs of the convolution. Dropout acts on the output alone: there are no weights
    to drop.

    Args:
        chunk: tokens per chunk; the work inside a chunk grows with it, the number of steps shrinks.
        eps: added to the squared lengths of q and k.
        conv: width of the short convolution, before QK-norm and rotation; 0 for none.
        out_norm: makes the norm of what is read, over the D channels of a head and before any output
            gate.

    Raises:
        ValueError: chunk < 1 or conv < 0.
    """

    definition = staticmethod(gated_delta_rule)
    gates_definition = staticmethod(delta_gates)
    gated_definition = staticmethod(normed_and_gated)
    variants = (
        {"chunk": 4},
        {"chunk": 1},
        {"chunk": 64},
        {"chunk": 4, "conv": 3, "out_norm": RMSNorm, "output_gate": "silu"},
    )

    def __init__(
        self,
        *,
        chunk: int = 64,
        eps: float = 1e-6,
        conv: int = 0,
        out_norm: Callable[[int], nn.Module] = nn.Identity,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if chunk < 1:
            raise ValueError(f"attention.chunk must be at least 1, got {chunk}")
        self.chunk, self.eps = chunk, eps
        self.make_gates()
        self.convolution = ShortConvolution.of_width(conv, self.qkv.out_features)
        self.out_norm = out_norm(self.head_dim)

    def make_gates(self) -> None:
        """The weights of α and β."""
        # One matrix for both gates, W_α above W_β. They have no bias but b.
        self.gates = nn.Linear(self.qkv.in_features, 2 * self.n_heads, bias=False)
        self.fused["gates.weight"] = [self.n_heads, self.n_heads]
        self.a_log = nn.Parameter(torch.zeros(self.n_heads))  # log A
        self.dt_bias = nn.Parameter(torch.zeros(self.n_heads))  # b

    def project(
        self, x: Tensor, pos: Position, positions: Tensor, state: State | None = None
    ) -> dict[str, Tensor]:
        """As in the base, and both gates."""
        gates = self.gates_of(x)
        return super().project(x, pos, positions, state) | gates

    def gates_of(self, x: Tensor) -> dict[str, Tensor]:
        """Both gates of each head: log α and β (B,H,T,1)."""
        a, b = wide(self.gates(x)).transpose(1, 2).unsqueeze(-1).chunk(2, dim=1)  # (B,H,T,1)
        rate, bias = (wide(p)[:, None, None] for p in (self.a_log.exp(), self.dt_bias))  # (H,1,1)
        return {"log_alpha": -rate * F.softplus(a + bias), "beta": b.sigmoid()}

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
        beta: Tensor,
        inputs: Tensor | None = None,
    ) -> tuple[Tensor, State | None]:
        dtype, length = v.dtype, v.shape[2]
        # A state that is read, corrected and written again thousands of times loses too much in bf16.
        with torch.autocast(q.device.type, enabled=False):
            q, k, v = self.unit(wide(q)), self.unit(wide(k)), wide(v)
            q = q * self.scale
            if self.n_kv_heads != self.n_heads:
                k, v = (x.repeat_interleave(self.n_heads // self.n_kv_heads, dim=1) for x in (k, v))
            memory = self.initial_state(q.shape[0], 0) if state is None else state
            assert isinstance(memory, DeltaState)
            log_alpha = faded(log_alpha, pos)
            # Tokens of zeros fill the last chunk: with β = 0 and α = 1 they leave the state as it is.
            y, memory = self.by_chunks(memory, *chunks((q, k, v, log_alpha, beta), self.chunk))
        memory.inputs = inputs
        return y[:, :, :length].to(dtype), None if state is None else memory

    def by_chunks(self, memory: DeltaState, *parts: Tensor) -> tuple[Tensor, DeltaState]:
        """The rule on parts (B,H,N,c,·), N chunks of c tokens."""
        return mix_chunks(memory, *parts)

    def gated(self, y: Tensor, x: Tensor) -> Tensor:
        """Normed per head, then gated: (B,T,H,D)."""
        return super().gated(self.out_norm(y), x)

    def unit(self, x: Tensor) -> Tensor:
        """Vectors of length 1: x / √(‖x‖² + eps)."""
        return x * (x.square().sum(-1, keepdim=True) + self.eps).rsqrt()

    def initial_state(self, batch_size: int, capacity: int) -> DeltaState:
        shape = (batch_size, self.n_heads, self.head_dim, self.head_dim)
        s = self.qkv.weight.new_zeros(shape, dtype=wide_dtype(self.qkv.weight.dtype))
        return DeltaState(s=s, inputs=self.convolution and self.convolution.no_past(batch_size))

    def mixing_flops(self, length: int) -> float:
        return self.n_heads * 6 * self.head_dim**2  # Sᵀk, k(v − Sᵀk)ᵀ and Sᵀq

    @property
    def projections(self) -> list[nn.Linear]:
        return [*super().projections, self.gates]

    def state_size(self, length: int) -> int:
        inputs = self.convolution.state_size() if self.convolution is not None else 0
        return self.n_heads * self.head_dim**2 + inputs

    def reset_parameters(self, init: Initializer) -> None:
        super().reset_parameters(init)
        reset_decay(init, self.a_log, self.dt_bias)


def faded(log_alpha: Tensor, pos: Position) -> Tensor:
    """log α (B,H,T,·) with the decay of the positions, where they have one."""
    decay = pos.log_decay()
    return log_alpha if decay is None else log_alpha + wide(decay)[:, None, None]


def chunks(parts: Sequence[Tensor], size: int) -> list[Tensor]:
    """Each (B,H,T,·) as N chunks (B,H,N,c,·) of c = `size` tokens, or T if these are fewer.

    Zeros fill the last chunk.
    """
    length = parts[0].shape[2]
    c = min(size, length)
    return [F.pad(x, (0, 0, 0, -length % c)).unflatten(2, (-1, c)) for x in parts]


@torch.no_grad()
def reset_decay(init: Initializer, a_log: Tensor, dt_bias: Tensor) -> None:
    """Draw the initial log A and b of a decay exp(−A·softplus(… + b))."""
    init.uniform(a_log, *RATES)
    init.uniform(dt_bias, *map(math.log, STEPS))
    a_log.log_()
    dt_bias.exp_().expm1_().log_()  # softplus makes Δ of log(e^Δ − 1)


def mix_chunks(
    memory: DeltaState, q: Tensor, k: Tensor, v: Tensor, log_alpha: Tensor, beta: Tensor
) -> tuple[Tensor, DeltaState]:
    """N chunks of c tokens: q, k, v (B,H,N,c,D), gates (B,H,N,c,1) -> (B,H,N·c,D) and the memory after.

    Inside a chunk that begins with S, token i writes kᵢuᵢᵀ, where uᵢ = βᵢ(vᵢ − what is read under kᵢ)
    depends on the writes before it. With γᵢⱼ = α of tokens j+1 … i, and γᵢ of all up to i:

        uᵢ = βᵢ(vᵢ − γᵢSᵀkᵢ − Σ_{j<i} γᵢⱼ(kᵢ·kⱼ)uⱼ)

    So all u of a chunk solve one unit lower triangular system, whose right side is linear in S. It is
    solved for all chunks at once with S left open; then S goes from chunk to chunk. Source: Yang et al.
    2024, "Parallelizing Linear Transformers with the Delta Rule over Sequence Length", section 3 (the WY
    representation), with the decay of Gated Delta Networks, section 3.3.
    """
    within = segment_sums(log_alpha.squeeze(-1)).exp()  # γᵢⱼ (B,H,N,c,c), zero where j > i
    since_start = log_alpha.cumsum(-2).exp()  # γᵢ (B,H,N,c,1)
    to_end = k * within[..., -1, :, None]  # (B,H,N,c,D)
    starts, written, memory = write_chunks(
        memory,
        to_end=to_end,
        kk=k @ k.mT * within,
        from_start=since_start * k,
        decay=since_start[:, :, :, -1:],
        v=v,
        beta=beta,
    )
    # What came before the chunk + what was written inside it.
    y = since_start * q @ starts + q @ k.mT * within @ written
    return y.flatten(2, 3), memory


def write_chunks(
    memory: DeltaState,
    *,
    to_end: Tensor,
    kk: Tensor,
    from_start: Tensor,
    decay: Tensor,
    v: Tensor,
    beta: Tensor,
) -> tuple[Tensor, Tensor, DeltaState]:
    """S at the start of each of N chunks (B,H,N,D,D), all u (B,H,N,c,D), and the memory after them.

    Args:
        memory: before the first chunk.
        to_end: keys times what fades until the chunk ends: (B,H,N,c,D).
        kk: products of keys i and j ≤ i, times what fades from j to i: (B,H,N,c,c).
        from_start: keys times what has faded since the chunk began: (B,H,N,c,D).
        decay: of S in a chunk, (B,H,N,1,1), or of each row of S, (B,H,N,D,1).
        v, beta: (B,H,N,c,D), (B,H,N,c,1).
    """
    # Of the system's matrix only what lies below the diagonal is read.
    system, right = kk * beta, torch.cat([v, from_start], dim=-1) * beta
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)
    from_v, from_s = solved.chunk(2, dim=-1)  # U = from_v − from_s S

    # Unbound: the gradient of a slice [:, :, n] would be as large as the whole tensor.
    keys = to_end.mT  # (B,H,N,D,c)
    s, starts, written = memory.s, [], []
    for now_v, now_s, now_decay, now_keys in zip(
        *(x.unbind(2) for x in (from_v, from_s, decay, keys)), strict=True
    ):
        u = now_v - now_s @ s  # (B,H,c,D)
        starts.append(s)
        written.append(u)
        s = now_decay * s + now_keys @ u
    return torch.stack(starts, 2), torch.stack(written, 2), DeltaState(s=s)


def segment_sums(x: Tensor) -> Tensor:
    """x (…,c) -> (…,c,c): xⱼ₊₁ + … + xᵢ in row i and column j, −∞ where j > i.

    As in Mamba-2 (Dao & Gu 2024, listing 1) each sum is taken by itself. As the difference of two sums
    from the start it would lose its digits behind one token that forgets nearly everything.
    """
    length = x.shape[-1]
    future = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
    terms = x.unsqueeze(-1).expand(*x.shape, length).tril(-1)  # xₗ in row l, where l > j
    return terms.cumsum(-2).masked_fill(future, float("-inf"))
