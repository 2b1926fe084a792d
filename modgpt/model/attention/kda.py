"""Kimi Delta Attention: the gated delta rule with a decay for each channel of the key."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.model.attention.gated_delta import (
    DeltaState,
    GatedDeltaAttention,
    write_chunks,
)
from modgpt.model.precision import wide


def kimi_gates(
    x: Tensor,
    *,
    gates: nn.Linear,
    decay_up: nn.Linear,
    a_log: Tensor,
    dt_bias: Tensor,
    n_heads: int,
    head_dim: int,
) -> dict[str, Tensor]:
    """αₜ = exp(−A·softplus(xₜW↓W↑ + b)) (B,H,T,D), and βₜ = sigmoid(xₜW_β) (B,H,T), of x (B,T,C).

    The rule itself is `gated_delta_rule`, where α has a number for each row of S.
    """
    narrow, for_beta = gates(x).split([head_dim, n_heads], dim=2)
    step = torch.log1p(torch.exp(decay_up(narrow) + dt_bias)).unflatten(2, (n_heads, head_dim))
    alpha = torch.exp(-a_log.exp()[:, None] * step).transpose(1, 2)
    return {"alpha": alpha, "beta": torch.sigmoid(for_beta).transpose(1, 2)}


class KimiDeltaAttention(GatedDeltaAttention):
    """Sₜ = (I − βₜkₜkₜᵀ)Diag(αₜ)Sₜ₋₁ + βₜkₜvₜᵀ, yₜ = Sₜᵀqₜ, with q and k as in `gated_delta`.

    Source: Kimi Team 2025, "Kimi Linear: An Expressive, Efficient Attention Architecture", section 3.
    `gated_delta` lets all of S fade by one number per token and head. Here each of the D channels of the
    key, a row of S, fades by its own, so that a head may forget one thing and keep another:
      - αₜ = exp(−A·softplus(xₜW↓W↑ + b)), where W↓ leads to D numbers and W↑ to D per head, A > 0 is one
        per head and b one per channel;
      - βₜ = sigmoid(xₜW_β), one per head.
    A and b start as in `gated_delta`.

    Training goes by chunks (`mix_channels`); decoding is the same with chunks of one token. Positions
    act as follows.
      - RoPE rotates q and k. The two channels that it turns together fade at different rates, so scores
        depend on more than distances. The paper has no positional encoding here.
      - ALiBi: its factor e^(−m) per token multiplies α.

    By itself the option is the rule. The paper's layer is conv=4, out_norm=rmsnorm and
    output_gate=element, except that there the output gate has two matrices, by way of D numbers.

    Cost per token and head: 6·D² FLOPs as a recurrence and 2·C + 2·D² for the gates, and 2·C·D for all
    heads together; D² numbers of state, at any length, and the inputs of the convolution.

    Knobs, their meaning and what is refused are those of `gated_delta`.
    """

    gates_definition = staticmethod(kimi_gates)

    def make_gates(self) -> None:
        """The weights of α and β."""
        width = self.n_heads * self.head_dim
        # One matrix for both gates, W↓ above W_β. They have no bias but b.
        rows = [self.head_dim, self.n_heads]
        self.gates = nn.Linear(self.qkv.in_features, sum(rows), bias=False)
        self.fused["gates.weight"] = rows
        self.decay_up = nn.Linear(self.head_dim, width, bias=False)  # W↑
        self.a_log = nn.Parameter(torch.zeros(self.n_heads))  # log A
        self.dt_bias = nn.Parameter(torch.zeros(width))  # b

    def gates_of(self, x: Tensor) -> dict[str, Tensor]:
        """Both gates of each head: log α (B,H,T,D) and β (B,H,T,1)."""
        narrow, b = self.gates(x).split_with_sizes([self.head_dim, self.n_heads], dim=2)
        raw = wide(self.decay_up(narrow)) + wide(self.dt_bias)
        step = F.softplus(raw).unflatten(2, (self.n_heads, -1)).transpose(1, 2)  # (B,H,T,D)
        rate = wide(self.a_log.exp())[:, None, None]  # (H,1,1)
        return {"log_alpha": -rate * step, "beta": wide(b).transpose(1, 2).unsqueeze(-1).sigmoid()}

    def by_chunks(self, memory: DeltaState, *parts: Tensor) -> tuple[Tensor, DeltaState]:
        return mix_channels(memory, *parts)

    @property
    def projections(self) -> list[nn.Linear]:
        return [*super().projections, self.decay_up]


def mix_channels(
    memory: DeltaState, q: Tensor, k: Tensor, v: Tensor, log_alpha: Tensor, beta: Tensor
) -> tuple[Tensor, DeltaState]:
    """N chunks of c tokens: q, k, v and log α (B,H,N,c,D), β (B,H,N,c,1) -> (B,H,N·c,D), memory after.

    The chunks of `gated_delta.mix_chunks`, where γ is a vector: with one number for each channel.
    """
    since_start = log_alpha.cumsum(-2).exp()  # γᵢ
    kk, qk = faded_products(torch.stack([k, q]), k, log_alpha)
    starts, written, memory = write_chunks(
        memory,
        to_end=k * sums_of_later(log_alpha).exp(),
        kk=kk,
        from_start=since_start * k,
        decay=since_start[..., -1:, :].mT,
        v=v,
        beta=beta,
    )
    y = since_start * q @ starts + qk @ written
    return y.flatten(2, 3), memory


def faded_products(x: Tensor, k: Tensor, log_alpha: Tensor) -> Tensor:
    """Σ over channels of xᵢkⱼγᵢⱼ in row i and column j ≤ i, zero where j > i: (…,c,D) -> (…,c,c).

    γᵢⱼ is the product of α of tokens j+1 … i. Taken apart as γᵢ/γⱼ, counted from the start of the chunk,
    it would be a product of matrices, but 1/γⱼ overflows where a channel forgets. So the chunk is halved
    again and again. For i in the second half and j in the first, γᵢⱼ is what fades from the middle to i
    times what fades from j to the middle. Neither exceeds 1, and each is the exponential of a sum of its
    own terms, which loses no digits. One product of matrices per halving gives all pairs.
    """
    length = x.shape[-2]
    size = 1 << (length - 1).bit_length()  # the next power of two
    x, k, log_alpha = (F.pad(z, (0, 0, 0, size - length)) for z in (x, k, log_alpha))
    found, half = (x * k).sum(-1)[..., None, None], 1  # squares along the diagonal, (…,n,half,half)
    while half < size:
        rows, keys, fades = (z.unflatten(-2, (-1, 2, half)) for z in (x, k, log_alpha))
        (early, late), keys, rows = fades.unbind(-3), keys.select(-3, 0), rows.select(-3, 1)
        below = rows * late.cumsum(-2).exp() @ (keys * sums_of_later(early).exp()).mT
        first, second = found.unflatten(-3, (-1, 2)).unbind(-3)
        found = torch.cat([F.pad(first, (0, half)), torch.cat([below, second], dim=-1)], dim=-2)
        half *= 2
    return found.squeeze(-3)[..., :length, :length]


def sums_of_later(x: Tensor) -> Tensor:
    """The sum over the tokens after each, of x (…,c,D)."""
    return F.pad(x.flip(-2).cumsum(-2).flip(-2)[..., 1:, :], (0, 0, 0, 1))
