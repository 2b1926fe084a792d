"""What a training minimises: the cross-entropy, and what label smoothing and a z-loss add to it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt.data.batch import IGNORED
from modgpt.kernels import head_loss
from modgpt.model.gpt import GPT
from modgpt.model.precision import wide


def objective(
    model: GPT, x: Tensor, targets: Tensor, *, label_smoothing: float, z_loss: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """The objective of a batch with its gradient, and its parts for the log.

    Means over the targets y that count, with logits z of V tokens:

        train/loss            −log p(y)
        aux/label_smoothing   ε (z_y − mean(z)): the target becomes (1 − ε) onehot(y) + ε/V
                              (Szegedy et al. 2016, "Rethinking the Inception Architecture", section 7)
        aux/z_loss            c logsumexp(z)² (PaLM, Chowdhery et al. 2022, section 5)

    Args:
        model: scores x (B,T,C) with its head.
        x: what the head reads.
        targets: (B,T).
        label_smoothing: ε; 0 for none.
        z_loss: c; 0 for none.
    """
    weight = model.head.weight
    if model.plain_head and head_loss.is_better(weight):
        total, (loss, smoothing, z) = head_loss.head_objective(
            x.flatten(0, 1), weight, targets.flatten(), IGNORED, label_smoothing, z_loss
        )
    else:
        logits = wide(model.logits(x))
        total = loss = cross_entropy(logits, targets)
        smoothing = z = torch.zeros_like(loss)
        counted = targets != IGNORED
        if label_smoothing:
            own = logits.gather(-1, targets.clamp(min=0)[..., None])[..., 0]  # (B,T)
            smoothing = label_smoothing * mean_of(own - logits.mean(-1), counted)
            total = total + smoothing
        if z_loss:
            z = z_loss * mean_of(logits.logsumexp(-1).square(), counted)
            total = total + z
    parts = {"train/loss": loss.detach()}
    if label_smoothing:
        parts["aux/label_smoothing"] = smoothing.detach()
    if z_loss:
        parts["aux/z_loss"] = z.detach()
    return total, parts


def mean_of(values: Tensor, counted: Tensor) -> Tensor:
    """The mean of the values that count."""
    return (values * counted).sum() / counted.sum().clamp(min=1)


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of the counted targets, in fp32 or better: (B,T,V), (B,T) -> scalar.

    Args:
        logits, targets: of a batch.
        reduction: `mean`, or `none` for all targets one after the other, (B·T,), 0 where one is ignored.
    """
    flat = wide(logits).flatten(0, 1), targets.flatten()
    return F.cross_entropy(*flat, ignore_index=IGNORED, reduction=reduction)
