"""A short convolution along the tokens, which some attentions apply to queries, keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.model.init import Initializer
from modgpt.model.state import State


def short_convolution(
    x: Tensor, *, weight: Tensor, bias: Tensor | None, width: int
) -> tuple[Tensor, Tensor]:
    """yₜ = SiLU(Σⱼ wⱼ ⊙ xₜ₋ⱼ + b) over the last `width` tokens, each channel on its own.

    x (B,T,c) -> (B,T,c), and the last width − 1 inputs (B,width−1,c). Before the text come zeros. The
    weight (c,1,width) has that of the token itself last.
    """
    x = torch.cat([x.new_zeros(len(x), width - 1, x.shape[2]), x], dim=1)
    rows = []
    for t in range(width - 1, x.shape[1]):
        seen = x[:, t - width + 1 : t + 1]  # (B,width,c)
        y = (seen * weight[:, 0].T).sum(1)
        rows.append(y if bias is None else y + bias)
    y = torch.stack(rows, dim=1)
    return y * torch.sigmoid(y), x[:, x.shape[1] - (width - 1) :]


class ShortConvolution(nn.Module):
    """SiLU of a causal convolution of each channel (depthwise) over the last `width` tokens.

    A token so sees the ones just before it without any attention. Source: Dao & Gu 2024 (Mamba-2), after
    H3 (Fu et al. 2023); Gated Delta Networks (Yang et al. 2024), section 3.4.

    Weights start uniform within ±1/√width, as those of `torch.nn.Conv1d` do; biases start at 0. A
    product of each channel by itself is no product of matrices, so no FLOPs are counted.

    Args:
        channels: c.
        width: tokens that an output depends on, its own included.
        bias: add a bias per channel.

    """

    definition = staticmethod(short_convolution)

    def __init__(self, channels: int, width: int, *, bias: bool = False) -> None:
        super().__init__()
        self.width = width
        # Of three dimensions, so that Muon does not take it for a projection.
        self.weight = nn.Parameter(torch.zeros(channels, 1, width))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    @classmethod
    def of_width(cls, width: int, channels: int, *, bias: bool = False) -> Self | None:
        """The convolution of the knob `conv`: none for a width of 0.

        Raises:
            ValueError: width < 0.
        """
        if width < 0:
            raise ValueError(f"attention.conv must be at least 0, got {width}; 0 leaves it out")
        return cls(channels, width, bias=bias) if width else None

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B,T,c) -> (B,T,c), and the inputs that the next tokens need.

        Args:
            x: the inputs of T tokens.
            past: the width − 1 inputs before them, None for zeros.
        """
        past = self.no_past(len(x)) if past is None else past
        seen = torch.cat([past.type_as(x), x], dim=1)
        y = F.conv1d(seen.mT, self.weight, self.bias, groups=len(self.weight)).mT
        # Copied, for a view would keep the inputs of the whole prompt in memory.
        return F.silu(y).type_as(x), seen[:, x.shape[1] :].to(past.dtype, copy=True)

    def no_past(self, batch_size: int) -> Tensor:
        """What comes before the first token: zeros (B,width−1,c)."""
        return self.weight.new_zeros(batch_size, self.width - 1, len(self.weight))

    def state_size(self) -> int:
        """Numbers in the state of one sequence."""
        return (self.width - 1) * len(self.weight)

    def reset_parameters(self, init: Initializer) -> None:
        """Draw the initial weights."""
        bound = self.width**-0.5
        init.uniform(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


@dataclass(kw_only=True)
class ConvolvedState(State):
    """The last inputs of a short convolution, (B,width−1,c), None where there is none."""

    inputs: Tensor | None = None
