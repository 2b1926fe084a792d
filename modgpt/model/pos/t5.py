"""T5's relative position bias: a trained number for each head and range of distances."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from modgpt.model.init import Initializer
from modgpt.model.pos.base import Position


def bucket(n: int, *, n_buckets: int, farthest: int) -> int:
    """The bucket of a key n tokens back, of K = `n_buckets`.

    Distances below K/2 have a bucket each. The other K/2 buckets divide the logarithm of the distances
    up to `farthest`; the last one also takes all that are farther.
    """
    exact = n_buckets // 2
    if n < exact:
        return n
    share = math.log(n / exact) / math.log(farthest / exact)
    return min(exact + int(share * (n_buckets - exact)), n_buckets - 1)


def t5_bias(h: int, n: int, *, table: nn.Embedding, n_buckets: int, farthest: int) -> Tensor:
    """b[bucket(n), h], the bias of head h for a key n tokens back."""
    return table.weight[bucket(n, n_buckets=n_buckets, farthest=farthest), h]


class T5Position(Position):
    """Adds b[bucket(i−j), h] to the score of query i and key j, b trained, one number per head.

    Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.1, in its form for
    decoders. All layers share the table, as there. There scores are not divided by √D (attention.scale=1
    does that); T5 has no other positions.

    Only attentions with scores can take it: there is no decay of a recurrent state that equals it.

    Args:
        n_buckets: K, rows of the table.
        farthest: the distance from which on all keys share the last bucket; None for block_size. T5
            takes 128 for windows of 512.

    Raises:
        ValueError: n_buckets is odd or below 2, or `farthest` is not above n_buckets/2.
    """

    bias_definition = staticmethod(t5_bias)
    variants = ({"n_buckets": 8, "farthest": 10}, {"farthest": 128}, {"n_buckets": 2, "farthest": 5})
    needs_scores = True
    buckets: Tensor

    def __init__(self, *, n_buckets: int = 32, farthest: int | None = None, **sizes: Any) -> None:
        super().__init__(**sizes)
        if n_buckets < 2 or n_buckets % 2:
            raise ValueError(f"pos.n_buckets must be even and at least 2, got {n_buckets}")
        block_size: int = sizes["block_size"]
        if farthest is None:
            farthest = max(block_size, n_buckets // 2 + 1)
        if farthest <= n_buckets // 2:
            raise ValueError(
                f"pos.farthest={farthest} must be above half of pos.n_buckets={n_buckets}: so many "
                "distances have a bucket each"
            )
        self.n_buckets, self.farthest = n_buckets, farthest
        # Where training never meets the last bucket, keys farther than the window have untrained biases.
        self.extrapolates = farthest <= block_size
        self.table = nn.Embedding(n_buckets, sizes["n_heads"])
        found = [bucket(n, n_buckets=n_buckets, farthest=farthest) for n in range(farthest + 1)]
        self.register_buffer("buckets", torch.tensor(found), persistent=False)

    def score_bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        distance = q_positions[:, None] - k_positions[None, :]  # (Tq, Tk)
        # Keys of the future have a negative distance. It is clamped: the attention hides them.
        rows = self.buckets[distance.clamp(0, self.farthest)]
        return self.table(rows).permute(2, 0, 1)  # (H, Tq, Tk)

    def reset_parameters(self, init: Initializer) -> None:
        init.normal(self.table.weight)
