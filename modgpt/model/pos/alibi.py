"""ALiBi: attention with linear biases."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from modgpt.model.pos.base import Position


def alibi_slopes(n_heads: int) -> list[float]:
    """One slope per head: the geometric sequence 2^(−8/n), 2^(−16/n), … for n a power of two.

    For other head counts the paper's rule takes the slopes of the next smaller power of two and fills
    up with every second slope of the next larger one.
    """
    power = 2 ** math.floor(math.log2(n_heads))

    def geometric(n: int) -> list[float]:
        return [2 ** (-8 * (h + 1) / n) for h in range(n)]

    return geometric(power) + geometric(2 * power)[0::2][: n_heads - power]


class AlibiPosition(Position):
    """Adds −mₕ·(i−j) to the score of query i and key j, mₕ the fixed slope of head h.

    Source: Press et al. 2022, "Train Short, Test Long", section 3. In softmax attention the bias
    multiplies the weight of a key by e^(−m(i−j)); linear attention has the same factor as an exact
    decay of its state by e^(−m) per token, which `log_decay` gives it.
    """

    extrapolates = True
    slopes: Tensor

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        # Fixed by the head count alone, so never stored in a checkpoint.
        self.register_buffer("slopes", torch.tensor(alibi_slopes(sizes["n_heads"])), persistent=False)

    def score_bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        distance = q_positions[:, None] - k_positions[None, :]  # (Tq, Tk)
        # Keys of the future have a distance below zero; clamped, for the mask is not ours to keep.
        return -self.slopes[:, None, None] * distance.clamp(min=0)  # (H, Tq, Tk)

    def log_decay(self) -> Tensor:
        return -self.slopes
