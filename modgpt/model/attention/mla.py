"""Multi-head latent attention: keys and values of all heads are made of one short vector per token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.model.attention.softmax import SoftmaxAttention, softmax_weights
from modgpt.model.pos.base import DefinedPosition, Position
from modgpt.model.state import State


def latent_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pos: DefinedPosition,
    latent: Tensor,
    shared_key: Tensor,
    sink: Tensor | None = None,
    *,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """softmax(scale·QKᵀ + bias) V, where a key is the head's own part and a rotated part that all share.

    One head of one sequence: q (T,D+R), k (T,D), v (T,Dv) -> (T,Dv), and the state after them. The
    latents (T,r), which k and v are made of, and the shared keys (T,R) are all that is kept.
    """
    own, rotated = q.split([k.shape[1], shared_key.shape[1]], dim=1)
    shared = pos.rotate(shared_key)
    q, k = torch.cat([own, pos.rotate(rotated)], dim=1), torch.cat([k, shared], dim=1)
    rows = []
    for i in range(len(q)):
        seen = range(i + 1)
        scores, bias = scale * q[i] @ k[seen].T, pos.bias([i - j for j in seen])
        rows.append(softmax_weights(scores, bias, None if sink is None else sink[i], softcap) @ v[seen])
    return torch.stack(rows), {"latents": torch.cat([latent, shared], dim=1)}


def heads_of_latents(
    x: Tensor,
    *,
    qkv: nn.Linear,
    q_norm: Callable[[Tensor], Tensor],
    k_norm: Callable[[Tensor], Tensor],
    q_up: nn.Linear | None,
    kv_up: nn.Linear,
    clip_qkv: float | None,
    n_heads: int,
    n_kv_heads: int,
    head_dim: int,
    v_head_dim: int,
    kv_rank: int,
    rope_dim: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """c = norm(W_c x), then k = W_k c and v = W_v c of each head; q = W_q x, or W_q norm(W_c' x).

    x (B,T,C) -> q (B,H,T,D+R), k (B,Hkv,T,D), v (B,Hkv,T,Dv), latent c (B,1,T,r), shared key (B,1,T,R),
    the last of these also a projection of x.
    """
    made = qkv(x) if clip_qkv is None else qkv(x).clamp(-clip_qkv, clip_qkv)
    q, latent, shared_key = made.split([made.shape[2] - kv_rank - rope_dim, kv_rank, rope_dim], dim=2)
    if q_up is not None:
        q = q_up(q_norm(q))
    latent = k_norm(latent)
    k, v = kv_up(latent).split([n_kv_heads * head_dim, n_kv_heads * v_head_dim], dim=2)
    heads = {"q": (q, n_heads), "k": (k, n_kv_heads), "v": (v, n_kv_heads)}
    heads |= {"latent": (latent, 1), "shared_key": (shared_key, 1)}
    return {name: z.unflatten(2, (n, -1)).transpose(1, 2) for name, (z, n) in heads.items()}, {}


@dataclass
class LatentCache(State):
    """Latent and rotated shared key of all tokens so far, side by side: (B,1,capacity,r+R)."""

    latents: Tensor
    length: int = 0

    def append(self, latents: Tensor) -> Tensor:
        """Write latents (B,1,T,r+R) behind what is there; return all that is there now."""
        start, new = self.length, latents.shape[2]
        if start + new > self.latents.shape[2]:
            raise ValueError(
                f"the cache has room for {self.latents.shape[2]} tokens, {start + new} are needed"
            )
        self.length += new
        self.latents[:, :, start : self.length] = latents
        return self.latents[:, :, : self.length]


class LatentAttention(SoftmaxAttention):
    """Softmax attention over keys and values that are made of a latent c of each token.

        c = norm(W_c x)                           r numbers, the same for all heads
        kₕ = [W_kₕ c ; k_R],  k_R = rotate(W_R x)  D numbers of the head's own, R that all heads share
        qₕ = [W_qₕ x ; rotate(W_q'ₕ x)]
        vₕ = W_vₕ c
        y = softmax(QKᵀ/√(D+R) + bias) V

    Only c and k_R are kept for decoding. Source: DeepSeek-V2 (2024), section 2.1; DeepSeek-V3 (2024),
    section 2.1.1. W_k could not be moved to the query's side (below) with a rotation in between, so
    position has R columns of its own, the "decoupled" ones. Positions that do not rotate leave them as
    they are; ALiBi's bias is added to the scores.

    With `q_rank` queries are made of a latent of their own, q = W_q norm(W_c' x), which saves parameters
    in wide models and nothing in the cache.

    Training, and a text from its first token on, computes the keys and values of all heads and attends
    to them. Tokens that come later meet the latents themselves ("absorbed", section 2.1.2): (W_k c)·q is
    c·(W_kᵀq), so each query is taken to the width of the latents. These serve as the one key and value
    of all heads, and W_v takes Σ a·c back. The result is the same, and no key is made again.

    Parameters with the ranks left null: 2.5·C² + 3·C·r + C·R, with r = C/2 those of `flash`, 4·C², and
    C·R more. DeepSeek-V3 has r = 4·D for C = 56·D, and R = D/2.

    Cost per token at length T: 2·H·(D + R + Dv)·(T+1)/2 FLOPs, r + R numbers of cache. Decoding one
    token costs 4·H·(r + R)·T FLOPs instead, and a second product with W_k and W_v: its own keys and
    values are made too.

    Deviations: `n_kv_heads` lets H/Hkv query heads share keys and values, as in other options; the paper
    has Hkv = H, and the cache does not depend on it. All knobs of the base have a meaning here:
      - `head_dim`: D, of the columns that are not rotated.
      - `scale`: None for 1/√(D+R).
      - `qk_norm`: makes the norms of the latents, r and `q_rank` wide (the paper's are RMSNorm); queries
        and keys themselves have none. So `qk_norm_over`, about heads, makes no difference.
      - `clip_qkv`: clips what is projected from x, that is latents, shared keys and queries without a
        latent.
      - `bias`: of the projections from x. Those from the latents have none.

    Args:
        kv_rank: r; None for C/2.
        q_rank: width of the latent of queries; None to make queries of x itself.
        rope_dim: R; None for D/2, rounded to an even number.
        v_head_dim: Dv, the width of a head's values; None for D.

    Raises:
        ValueError: one of these is below 1.
    """

    definition = staticmethod(latent_attention)
    projection_definition = staticmethod(heads_of_latents)
    variants = (
        {},
        {"kv_rank": 5, "q_rank": 7, "rope_dim": 4, "v_head_dim": 3},
        {"v_head_dim": 6, "sinks": True, "softcap": 2.0, "output_gate": "element"},
    )

    def __init__(
        self,
        *,
        kv_rank: int | None = None,
        q_rank: int | None = None,
        rope_dim: int | None = None,
        v_head_dim: int | None = None,
        d_model: int,
        bias: bool = False,
        scale: float | None = None,
        qk_norm: Callable[[int], nn.Module] = nn.Identity,
        output_gate: Literal["head", "element"] | None = None,
        **base: Any,
    ) -> None:
        super().__init__(d_model=d_model, bias=bias, output_gate=output_gate, **base)
        widths = {
            "kv_rank": max(1, d_model // 2) if kv_rank is None else kv_rank,
            "q_rank": 1 if q_rank is None else q_rank,
            "rope_dim": max(2, 2 * round(self.head_dim / 4)) if rope_dim is None else rope_dim,
            "v_head_dim": self.head_dim if v_head_dim is None else v_head_dim,
        }
        for name, width in widths.items():
            if width < 1:
                raise ValueError(f"attention.{name} must be at least 1, got {width}")
        self.kv_rank, self.q_rank = widths["kv_rank"], q_rank
        self.rope_dim, self.v_head_dim = widths["rope_dim"], widths["v_head_dim"]
        q_width = self.head_dim + self.rope_dim
        self.scale = q_width**-0.5 if scale is None else scale
        # In place of the base's projections, which know one width of all heads.
        queries = self.n_heads * q_width if q_rank is None else q_rank
        rows = [queries, self.kv_rank, self.rope_dim]
        self.qkv = nn.Linear(d_model, sum(rows), bias=bias)
        self.q_norm = nn.Identity() if q_rank is None else qk_norm(q_rank)
        self.q_up = None if q_rank is None else nn.Linear(q_rank, self.n_heads * q_width, bias=False)
        self.k_norm = qk_norm(self.kv_rank)
        kv_rows = [self.n_kv_heads * width for width in (self.head_dim, self.v_head_dim)]
        self.kv_up = nn.Linear(self.kv_rank, sum(kv_rows), bias=False)  # W_k of all heads above W_v
        self.fused = {"qkv.weight": rows, "kv_up.weight": kv_rows}
        mixed = self.n_heads * self.v_head_dim
        self.out = nn.Linear(mixed, d_model, bias=self.out_bias)
        if output_gate == "element":
            self.output_gate = nn.Linear(d_model, mixed, bias=False)

    def project(
        self, x: Tensor, pos: Position, positions: Tensor, state: State | None = None
    ) -> dict[str, Tensor]:
        """q and k (B,·,T,D+R), v (B,Hkv,T,Dv), and what is kept of x: latents (B,1,T,r+R)."""
        made = self.qkv(x)
        if self.clip_qkv is not None:
            made = made.clamp(-self.clip_qkv, self.clip_qkv)
        q, latent, shared_key = made.split_with_sizes(self.fused["qkv.weight"], dim=2)
        latent = self.k_norm(latent)
        k, v = self.kv_up(latent).split_with_sizes(self.fused["kv_up.weight"], dim=2)
        if self.q_up is not None:
            q = self.q_up(self.q_norm(q))
        q = q.unflatten(2, (self.n_heads, -1)).transpose(1, 2)  # (B,H,T,D+R)
        k, v = (z.unflatten(2, (self.n_kv_heads, -1)).transpose(1, 2) for z in (k, v))  # (B,Hkv,T,·)
        # The shared key is rotated with the queries, as one head more.
        own, rotated = q.split_with_sizes([self.head_dim, self.rope_dim], dim=3)
        rotated = pos.rotate(torch.cat([rotated, shared_key[:, None]], dim=1), positions)
        rotated, shared = rotated.split_with_sizes([self.n_heads, 1], dim=1)
        return {
            "q": torch.cat([own, rotated], dim=3),
            "k": torch.cat([k, shared.expand(-1, self.n_kv_heads, -1, -1).type_as(k)], dim=3),
            "v": v,
            "latents": torch.cat([latent[:, None], shared.type_as(latent)], dim=3),
        }

    def mix(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pos: Position,
        positions: Tensor,
        state: State | None,
        *,
        latents: Tensor,
    ) -> tuple[Tensor, State | None]:
        first = True
        if state is not None:
            assert isinstance(state, LatentCache)
            first = state.length == 0
            latents = state.append(latents)
        n_queries, n_keys = q.shape[2], k.shape[2] if first else latents.shape[2]
        k_positions = positions if first else torch.arange(n_keys, device=q.device)
        bias = pos.score_bias(positions, k_positions)
        if first:
            is_causal = bias is None
            allowed = None if is_causal else k_positions[None, :] <= positions[:, None]
            # Fused kernels want values as wide as keys. Filled up with zeros they take half the time of
            # the plain one, and less memory (CPU, 16 windows of 256, 8 heads: 206 and 389 ms).
            filled = F.pad(v, (0, max(0, k.shape[3] - v.shape[3])))
            y = self.attend(q, k, filled, allowed=allowed, bias=bias, is_causal=is_causal)
            return y[..., : v.shape[3]], state
        # A single query is the newest token: every key there is lies in its past.
        allowed = k_positions[None, :] <= positions[:, None] if n_queries > 1 else None
        to_keys, to_values = self.of_query_heads()
        own, rotated = q.split_with_sizes([self.head_dim, self.rope_dim], dim=3)
        q = torch.cat([own @ to_keys, rotated], dim=3).type_as(latents)  # (B,H,T,r+R)
        # The shared keys stay behind the latents when these are the values, for the same reason.
        y = self.attend(q, latents, latents, allowed=allowed, bias=bias)[..., : self.kv_rank]
        return y @ to_values.mT, state  # (B,H,T,r) -> (B,H,T,Dv)

    def of_query_heads(self) -> tuple[Tensor, Tensor]:
        """W_k (H,D,r) and W_v (H,Dv,r) of each query head."""
        both = self.kv_up.weight.split_with_sizes(self.fused["kv_up.weight"])
        w_k, w_v = (w.unflatten(0, (self.n_kv_heads, -1)) for w in both)
        if self.n_kv_heads != self.n_heads:
            w_k, w_v = (w.repeat_interleave(self.n_heads // self.n_kv_heads, dim=0) for w in (w_k, w_v))
        return w_k, w_v

    def initial_state(self, batch_size: int, capacity: int) -> LatentCache:
        shape = (batch_size, 1, capacity, self.kv_rank + self.rope_dim)
        return LatentCache(latents=self.qkv.weight.new_empty(shape))

    def mixing_flops(self, length: int) -> float:
        keys = (length + 1) / 2  # mean over the queries t = 0 … T−1 of the t+1 keys each one sees
        return 2 * self.n_heads * (self.head_dim + self.rope_dim + self.v_head_dim) * keys

    def state_size(self, length: int) -> int:
        return length * (self.kv_rank + self.rope_dim)

    @property
    def rotated_width(self) -> int:
        return self.rope_dim

    @property
    def projections(self) -> list[nn.Linear]:
        return [*super().projections, self.kv_up, *([] if self.q_up is None else [self.q_up])]
