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
    return head_objective(x, weight, targets, ignored, 0.0, 0.0)[0]


def head_objective(
    x: Tensor, weight: Tensor, targets: Tensor, ignored: int, label_smoothing: float, z_loss: float
) -> tuple[Tensor, Tensor]:
    """`head_loss` with what label smoothing and the z-loss add to it, as in `modgpt.training.objective`.

    Args:
        x, weight, targets, ignored: as for `head_loss`.
        label_smoothing, z_loss: ε and the coefficient; 0 for none.

    Returns: their sum, and without gradients its three parts: cross-entropy, and the two additions.
    """
    return HeadLoss.apply(  # pyright: ignore[reportReturnType]
        x, weight, targets, ignored, dtype_of(x), label_smoothing, z_loss
    )


class HeadLoss(torch.autograd.Function):
    """The gradients are made with the loss: that of the logits is (softmax − onehot)/n.

    With label smoothing ε and a z-loss of coefficient c it is
    ((1 + 2c·logsumexp)·softmax − (1 − ε)·onehot − ε/V)/n.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        ignored: int,
        dtype: torch.dtype,
        label_smoothing: float,
        z_loss: float,
    ) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(x.dtype, torch.float32)
        matrix = weight.to(dtype)
        counted = (targets != ignored).to(exact)
        share = (counted / counted.sum().clamp(min=1))[:, None]  # of each target in the mean
        parts = torch.zeros(3, dtype=exact, device=x.device)
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
                of_own = logits.gather(1, own)
                parts[0] += ((log_sum - of_own) * part).sum()
                if label_smoothing:
                    mean = logits.mean(-1, keepdim=True, dtype=exact)
                    parts[1] += label_smoothing * ((of_own - mean) * part).sum()
                if z_loss:
                    parts[2] += z_loss * (log_sum.square() * part).sum()
                    p *= 1 + 2 * z_loss * log_sum
                p.scatter_add_(1, own, torch.full_like(own, label_smoothing - 1, dtype=exact))
                if label_smoothing:
                    p -= label_smoothing / len(weight)
                p = p.to(dtype)
                grad.copy_((p @ matrix) * part)
                dweight += p.mT @ (rows * part).to(dtype)
        ctx.save_for_backward(dx, dweight.to(weight.dtype))
        ctx.mark_non_differentiable(parts)
        return parts.sum(), parts

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, _ = gradients
        dx, dweight = ctx.saved_tensors
        return dx * gradient, dweight * gradient, None, None, None, None, None
