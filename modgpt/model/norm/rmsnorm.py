"""RMSNorm: layer norm without the mean."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modgpt.kernels import rms_norm as kernel


def rms_norm(x: Tensor, *, weight: Tensor, eps: float) -> Tensor:
    """weight ⊙ x / √(mean(x²) + eps), the mean over the last dimension of x."""
    return weight * x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps)


class RMSNorm(nn.RMSNorm):
    """Root mean square normalisation: PyTorch's own on a GPU, `modgpt.kernels.rms_norm` on a CPU.

    Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", section 4.

    Args:
        width: size of the last dimension.
        eps: added to the mean square.

    Shapes: (..., width) -> (..., width).
    """

    definition = staticmethod(rms_norm)
    variants = ({}, {"eps": 1.0})

    def __init__(self, width: int, *, eps: float = 1e-5) -> None:
        super().__init__(width, eps=eps)
        self.least = torch.tensor(eps, device="cpu")  # for the kernel; not a buffer: it stays

    def forward(self, x: Tensor) -> Tensor:
        if kernel.is_faster(x):
            return kernel.rms_norm(x, weight=self.weight, eps=self.least)
        return super().forward(x)
