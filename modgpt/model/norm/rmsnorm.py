"""RMSNorm: layer norm without the mean."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """y = w ⊙ x / √(mean(x²) + eps), the mean over the last dimension.

    Source: Zhang & Sennrich 2019, "Root Mean Square Layer Normalization", section 4. PyTorch has a fused
    backward pass on a GPU; on a CPU it is given here.

    Args:
        width: size of the last dimension.
        eps: added to the mean square.

    Shapes: (..., width) -> (..., width).
    """

    def __init__(self, width: int, *, eps: float = 1e-5) -> None:
        super().__init__(width, eps=eps)
        self.least = torch.tensor(eps, device="cpu")  # not a buffer: nothing but the CPU's way reads it

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        wide = x.float()  # in bf16 the mean square would keep only 8 bits
        if x.requires_grad:
            y = _OnCPU.apply(wide, self.weight, self.least)
        else:
            y = wide * inverse_rms(wide, self.least) * self.weight
        return y if y.dtype == x.dtype else y.type_as(x)


def inverse_rms(x: Tensor, eps: Tensor) -> Tensor:
    """1/√(mean(x²) + eps) over the last dimension, which is kept: (..., width) -> (..., 1)."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.addcmul(eps, length, length, value=1 / x.shape[-1]).rsqrt_()


class _OnCPU(torch.autograd.Function):
    """With r = 1/√(mean(x²) + eps) and the gradient g of y = w ⊙ xr:

    dx = r(w ⊙ g) − r³x·mean(w ⊙ g ⊙ x),  dw = Σ g ⊙ xr.

    Layer norm's backward kernel, told that the mean is 0, gives dw, and dx but for a term −r·mean(w ⊙ g)
    that it has because its mean depends on x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: Tensor) -> Tensor:
        r = inverse_rms(x, eps)
        ctx.save_for_backward(x, weight, r)
        return (x * r).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (g,), (x, weight, r) = grads, ctx.saved_tensors
        width = x.shape[-1]
        dx, dw, _ = torch.ops.aten.native_layer_norm_backward(
            g, x, [width], torch.zeros_like(r), r, weight, None, [True, True, False]
        )
        return dx.addcmul_(r, (g @ weight).unsqueeze(-1), value=1 / width), dw, None
