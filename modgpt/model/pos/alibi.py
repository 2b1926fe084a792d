"""ALiBi: attention with linear biases."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from modgpt.model.pos.base import Position
from modgpt.model.precision import wide


def alibi(h: int, n: int, *, slopes: Tensor) -> Tensor:
    """−mₕ·n, the bias of head h for a key n tokens back."""
    return -slopes[h] * n


def alibi_exponents(n_heads: int) -> list[float]:
    """One exponent e per head, of its slope m = 2^(−e): 8/n, 16/n, …, 8 for n a power of two.

    For other head counts the paper's rule takes the slopes of the next smaller power of two and fills
    up with every second slope of the next larger one.
    """
    power = 2 ** math.floor(math.log2(n_heads))

    def arithmetic(n: int) -> list[float]:
        return [8 * (h + 1) / n for h in range(n)]

    return arithmetic(power) + arithmetic(2 * power)[0::2][: n_heads - power]


class AlibiPosition(Position):
    """Adds −mₕ·(i−j) to the score of query i and key j, mₕ the fixed slope of head h.

    Source: Press et al. 2022, "Train Short, Test Long", section 3. In softmax attention the bias
    multiplies the weight of a key by e^(−m(i−j)); linear attention has the same factor as an exact
    decay of its state by e^(−m) per token, which `log_decay` gives it.
    """

    bias_definition = staticmethod(alibi)
    extrapolates = True
    exponents: Tensor

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        # Fixed by the head count alone, so never stored in a checkpoint. Exponents stay exact when a
        # model is cast to bf16 or fp64; slopes would not.
        exponents = torch.tensor(alibi_exponents(sizes["n_heads"]))
        self.register_buffer("exponents", exponents, persistent=False)

    @property
    def slopes(self) -> Tensor:
        """m of every head, (H,)."""
        return torch.exp2(-wide(self.exponents))

    def score_bias(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        distance = q_positions[:, None] - k_positions[None, :]  # (Tq, Tk)
        # Keys of the future have a negative distance. It is clamped: the attention hides them.
        return -self.slopes[:, None, None] * distance.clamp(min=0)  # (H, Tq, Tk)

    def log_decay(self) -> Tensor:
        return -self.slopes
