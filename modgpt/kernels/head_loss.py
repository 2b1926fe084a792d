"""The cross-entropy behind the head, a few rows at a time, with its gradients.

Reason: the logits of a large vocabulary are the largest tensor of a step, (N,V), and the loss makes
several copies of it in fp32. Here a slice of rows is multiplied, turned into its loss and its gradients,
and forgotten: memory for `LOGITS_AT_ONCE` numbers in place of several times N·V, and each slice stays in
the processor's cache. The products are those of the plain way: one forwards, two backwards.
Rule: in training, from a vocabulary of `SMALLEST` on, where the logits are the product alone; not in
fp16, where small gradients would be lost before the loss is scaled. PyTorch's own `linear_cross_entropy`
in chunks was slower than the plain way in bf16 on a CPU (docs/results/performance.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SMALLEST = 2048  # tokens in the vocabulary
LOGITS_AT_ONCE = 2**20  # what a processor's cache has room for


def is_better(weight: Tensor) -> bool:
    """Whether to use this kernel for a head of that weight (V,C)."""
    return len(weight) >= SMALLEST and torch.is_grad_enabled() and dtype_of(weight) != torch.float16


def dtype_of(x: Tensor) -> torch.dtype:
    """The type in which products with x are computed."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def head_loss(x: Tensor, weight: Tensor, targets: Tensor, ignored: int) -> Tensor:
    """The mean cross-entropy of the logits xWᵀ, over targets that count.

    Args:
        x: (N,C), what the head reads.
        weight: (V,C), of the head.
        targets: (N,).
        ignored: the target that does not count.

    Returns: a scalar in fp32, or in fp64 where x is.
    """
    return HeadLoss.apply(x, weight, targets, ignored, dtype_of(x))  # pyright: ignore[reportReturnType]


class HeadLoss(torch.autograd.Function):
    """The gradients are made with the loss: that of the logits is (softmax − onehot)/n."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, ignored: int, dtype: torch.dtype
    ) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        matrix = weight.to(dtype)
        counted = (targets != ignored).to(exact)
        share = (counted / counted.sum().clamp(min=1))[:, None]  # of each target in the mean
        total = torch.zeros((), dtype=exact, device=x.device)
        dx, dweight = torch.empty_like(x), torch.zeros_like(weight, dtype=exact)
        with torch.autocast(x.device.type, enabled=False):
            step = max(1, LOGITS_AT_ONCE // len(weight))
            for rows, own, part, grad in zip(
                *(t.split(step) for t in (x, targets[:, None], share, dx)), strict=True
            ):
                logits, own = rows.to(dtype) @ matrix.mT, own.clamp(min=0)  # (n,V), (n,1)
                p = logits.softmax(-1, dtype=exact)
                # log Σ exp: the largest p is 1 / Σ exp(logits − largest), so no second pass of exp.
                largest = logits.amax(-1, keepdim=True).to(exact)
                log_sum = largest - p.amax(-1, keepdim=True).log()
                total += ((log_sum - logits.gather(1, own)) * part).sum()
                p.scatter_add_(1, own, torch.full_like(own, -1, dtype=exact))
                p = p.to(dtype)
                grad.copy_((p @ matrix) * part)
                dweight += p.mT @ (rows * part).to(dtype)
        ctx.save_for_backward(dx, dweight.to(weight.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        dx, dweight = ctx.saved_tensors
        return dx * gradient, dweight * gradient, None, None, None
