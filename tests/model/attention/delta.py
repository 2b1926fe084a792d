"""What the tests of the delta rules share: the rule token by token, its chunks, long texts."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt.model.attention.gated_delta import DeltaState

D = 8
DECAYS = ("one", "slow", "fast", "mixed")


def recurrence(
    q: Tensor, k: Tensor, v: Tensor, log_alpha: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor]:
    """The rule, token by token in fp64.

    q, k, v (B,H,T,D), log α (B,H,T,1) or one per channel (B,H,T,D), β (B,H,T,1) -> (B,H,T,D), S.
    """
    q, k, v, log_alpha, beta = (x.double() for x in (q, k, v, log_alpha, beta))
    s, ys = q.new_zeros(*q.shape[:2], q.shape[3], q.shape[3]), []
    for t in range(q.shape[2]):
        kt, bt = k[:, :, t, :, None], beta[:, :, t, None]  # (B,H,D,1), (B,H,1,1)
        erase = torch.eye(q.shape[3]) - bt * kt @ kt.mT
        s = erase @ (log_alpha[:, :, t, :, None].exp() * s) + bt * kt @ v[:, :, t, None]
        ys.append(q[:, :, t, None] @ s)
    return torch.cat(ys, dim=2), s


def in_chunks(
    mix: Callable[..., tuple[Tensor, DeltaState]], *parts: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """The same by chunks: `mix_chunks` or `mix_channels`."""
    width = parts[0].shape[3]
    before = DeltaState(s=torch.zeros(*parts[0].shape[:2], width, width, dtype=parts[0].dtype))
    y, after = mix(before, *(x.unflatten(2, (-1, chunk)) for x in parts))
    return y, after.s


def random_parts(length: int, heads: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """q, k of length 1 and v (2,H,T,D)."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, heads, length, D, generator=generator)
    return F.normalize(q, dim=-1), F.normalize(k, dim=-1), v


def check_thousands_of_tokens(
    mix: Callable[..., tuple[Tensor, DeltaState]], keys: str, decay: str, *, channels: int
) -> None:
    """Chunks in fp32 are the rule in fp64, with β near 1 throughout, for 2,048 tokens.

    Args:
        mix: by chunks.
        keys: `the same` for all tokens makes the triangular system as hard as it gets.
        decay: one of `DECAYS`.
        channels: numbers in α per token, 1 or D.
    """
    q, k, v = random_parts(2048)
    if keys == "the same":
        k = k[:, :, :1].expand_as(k)
    generator = torch.Generator().manual_seed(1)
    beta = 0.9 + 0.1 * torch.rand(2, 3, 2048, 1, generator=generator)
    u = torch.rand(2, 3, 2048, channels, generator=generator)
    log_alpha = {"one": 0 * u, "slow": -1e-3 * u, "fast": -10 * u, "mixed": -(10 ** (8 * u - 4))}[decay]
    y, s = in_chunks(mix, q, k, v, log_alpha, beta, chunk=64)
    slow_y, slow_s = recurrence(q, k, v, log_alpha, beta)
    torch.testing.assert_close(y.double(), slow_y, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(s.double(), slow_s, rtol=1e-4, atol=1e-5)
