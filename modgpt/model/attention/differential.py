"""Full causal attention by the difference of two softmax maps."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.model.attention.flash import FlashAttention
from modgpt.model.attention.softmax import softmax_weights
from modgpt.model.init import Initializer
from modgpt.model.norm.rmsnorm import RMSNorm
from modgpt.model.pos.base import DefinedPosition, Position
from modgpt.model.precision import wide

# Standard deviation of the vectors that make λ, at the start.
LAMBDA_STD = 0.1


def differential_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pos: DefinedPosition,
    sink: Tensor | None = None,
    *,
    scale: float,
    softcap: float | None,
    lambda_q1: Tensor,
    lambda_k1: Tensor,
    lambda_q2: Tensor,
    lambda_k2: Tensor,
    lambda_init: float,
    head_norm: Any,
) -> tuple[Tensor, dict[str, Tensor]]:
    """(1 − λ_init)·norm((softmax(scale·Q₁K₁ᵀ + bias) − λ·softmax(scale·Q₂K₂ᵀ + bias)) V).

    One head of one sequence: q, k, v (T,D) -> (T,D), and the state after them. Each query i is over all
    keys j ≤ i. Q₁ and K₁ are the first half of the columns of q and k, Q₂ and K₂ the second.
    """
    q1, q2 = (pos.rotate(half) for half in q.chunk(2, dim=1))  # (T,D/2) each
    k1, k2 = (pos.rotate(half) for half in k.chunk(2, dim=1))
    exponents = (lambda_q1 * lambda_k1).sum(), (lambda_q2 * lambda_k2).sum()
    lambda_ = exponents[0].exp() - exponents[1].exp() + lambda_init
    rows = []
    for i in range(len(q)):
        seen = range(i + 1)
        bias, own_sink = pos.bias([i - j for j in seen]), None if sink is None else sink[i]
        first = softmax_weights(scale * q1[i] @ k1[seen].T, bias, own_sink, softcap)
        second = softmax_weights(scale * q2[i] @ k2[seen].T, bias, own_sink, softcap)
        rows.append((first - lambda_ * second) @ v[seen])
    y = (1 - lambda_init) * head_norm(torch.stack(rows))
    return y, {"k": torch.cat([k1, k2], dim=1), "v": v}


class DifferentialAttention(FlashAttention):
    """(1 − λ_init)·norm((softmax(Q₁K₁ᵀ/√d + bias) − λ·softmax(Q₂K₂ᵀ/√d + bias)) V), with d = D/2.

    Source: Ye et al. 2024, "Differential Transformer", section 2, and the authors' code. What both maps
    of a head give to a key cancels, as the difference of two signals removes the noise that both have.
    λ is one number per layer, made of four learned vectors of width d:

        λ = exp(λ_q1·λ_k1) − exp(λ_q2·λ_k2) + λ_init,  λ_init = 0.8 − 0.6·exp(−0.3·layer), layer from 0.

    The norm is an RMSNorm over the D columns of a head. It keeps the size of the output, which the
    difference would make small. The heads of a layer share its D gains, as in the authors' code
    (DiffLlama in transformers has none).

    A head of width D holds two of width d: q and k are split in half, v stays whole. So all weights but
    the vectors of λ and the gains are those of `flash`. The paper keeps d as wide as the heads that it
    compares with, and halves their number: here `model.n_heads` of half the size.

    Each of the halves is rotated like a head of its own of width d, as in the authors' code. A rotation
    of all D columns would pair columns of Q₁ with columns of Q₂, and neither map would depend on
    distances alone. So d is even where pos=rope. A norm of q and k comes before the split, and is over
    both halves; the paper has none. A bias (pos=alibi) and a sink are the same for both maps.

    The two products with V are taken one by one (`attend`), so that the kernels of `flash` serve.

    Cost per token and head at length T: 4·D·(T+1)/2 FLOPs and 2·T·D numbers of cache, as `flash`.
    Dropout of weights acts on each map by itself.

    Args:
        scale: factor of the scores; None for 1/√d.

    Raises:
        ValueError: the head width is odd.
    """

    definition = staticmethod(differential_attention)

    def __init__(self, *, scale: float | None = None, **softmax: Any) -> None:
        super().__init__(scale=scale, **softmax)
        if self.head_dim % 2:
            raise ValueError(
                f"attention=differential splits heads in half: their width must be even, got "
                f"{self.head_dim}; set attention.head_dim"
            )
        width = self.head_dim // 2
        self.scale = width**-0.5 if scale is None else scale
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * self.layer)
        self.lambda_q1, self.lambda_k1 = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.lambda_q2, self.lambda_k2 = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.head_norm = RMSNorm(self.head_dim)

    @property
    def rotated_width(self) -> int:
        return self.head_dim // 2

    def norm_and_rotate(self, qk: Tensor, pos: Position, positions: Tensor) -> tuple[Tensor, Tensor]:
        """As in the base, each half of a query or key by itself."""
        halves = self.normed(qk).unflatten(3, (2, -1)).transpose(2, 3)  # (B,H+Hkv,2,T,d)
        rotated = pos.rotate(halves.flatten(1, 2), positions)  # (B,2(H+Hkv),T,d)
        return self.split(rotated.unflatten(1, (-1, 2)).transpose(2, 3).flatten(3))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, **masks: Any) -> Tensor:
        """The first map times V, minus λ times the second.

        Zeros in place of the other half of a query leave its scores alone. So keys and values stay whole
        and equally wide, which the fused kernels ask for; a slice of k beside all of v would be written
        as T×T scores. It costs two more products with zeros: 8·D FLOPs per key in place of 6·D.
        """
        half = self.head_dim // 2
        first = super().attend(F.pad(q[..., :half], (0, half)), k, v, **masks)
        second = super().attend(F.pad(q[..., half:], (half, 0)), k, v, **masks)
        return first - self.lambda_().to(second.dtype) * second

    def lambda_(self) -> Tensor:
        """λ, at least in fp32."""
        first = (wide(self.lambda_q1) * wide(self.lambda_k1)).sum().exp()
        second = (wide(self.lambda_q2) * wide(self.lambda_k2)).sum().exp()
        return first - second + self.lambda_init

    def gated(self, y: Tensor, x: Tensor) -> Tensor:
        """Normed per head, then gated: (B,T,H,D)."""
        return super().gated((1 - self.lambda_init) * self.head_norm(y), x)

    def reset_parameters(self, init: Initializer) -> None:
        super().reset_parameters(init)
        for vector in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2):
            init.fill(vector, lambda x, generator: x.normal_(0, LAMBDA_STD, generator=generator))
        nn.init.ones_(self.head_norm.weight)
