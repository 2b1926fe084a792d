"""RMSNorm: layer norm without the mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modgpt.kernels import rms_norm as kernel


def rms_norm(x: Tensor, *, weight: Tensor, eps: float, zero_centred: bool) -> Tensor:
    """gain ⊙ x / √(mean(x²) + eps), the mean over the last dimension of x.

    The gain is the weight, or 1 + weight.
    """
    gain = 1 + weight if zero_centred else weight
    return gain * x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps)


class RMSNorm(nn.RMSNorm):
    """Root mean square normalisation: PyTorch's own on a GPU, `modgpt.kernels.rms_norm` on a CPU.

    Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", section 4.

    Args:
        width: size of the last dimension.
        eps: added to the mean square.
        zero_centred: keep the gain as 1 + weight, so that weights near 0 are gains near 1 (Gemma, 2024).

    Shapes: (..., width) -> (..., width).
    """

    definition = staticmethod(rms_norm)
    variants = ({}, {"eps": 1.0}, {"zero_centred": True})

    def __init__(self, width: int, *, eps: float = 1e-5, zero_centred: bool = False) -> None:
        super().__init__(width, eps=eps)
        self.zero_centred = zero_centred
        if zero_centred:
            nn.init.zeros_(self.weight)
        self.least = torch.tensor(eps, device="cpu")  # for the kernel; not a buffer: it stays

    def forward(self, x: Tensor) -> Tensor:
        gain = 1 + self.weight if self.zero_centred else self.weight
        if kernel.is_faster(x):
            return kernel.rms_norm(x, weight=gain, eps=self.least)
        return F.rms_norm(x, self.normalized_shape, gain, self.eps)
