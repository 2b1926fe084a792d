"""Windows of a text in which every target counts once, and the losses of these targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from modgpt.data.batch import inputs_and_targets

# Most tokens of a batch, and most scores per head: the memory of a batch is bounded at every length.
MOST_TOKENS, MOST_SCORES = 2**14, 2**24


def cut(tokens: Tensor, length: int, stride: int) -> list[tuple[Tensor, int]]:
    """Batches of windows in which each of the N−1 targets is new exactly once.

    A window starts every `stride` tokens. All targets of the first window are new. In each other window
    the last `stride` are new: the window before has counted the earlier ones. The rest at the end of the
    text is a shorter window.

    Args:
        tokens: (N,) ids, N > length.
        length: L.
        stride: tokens from one window to the next, 1 … L.

    Returns:
        Pairs of windows (b,L+1), which share the tokens' memory, and the number of targets at their
        beginning that are not new.
    """
    windows = tokens.unfold(0, length + 1, stride)
    known = length - stride
    end = (len(windows) - 1) * stride + length  # the last target in a full window
    size = max(1, min(MOST_TOKENS // length, MOST_SCORES // length**2))
    batches = [(windows[:1], 0), *((batch, known) for batch in windows[1:].split(size) if len(batch))]
    if end < len(tokens) - 1:
        batches.append((tokens[len(windows) * stride :][None], known))
    return batches


@torch.inference_mode()
def loss_by_position(
    model: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, int]], length: int
) -> tuple[Tensor, Tensor]:
    """Sum of the losses of all new targets at each position, and their number: (L,) each.

    Args:
        model: tokens (b,T) -> logits (b,T,V).
        batches: as `cut` returns them.
        length: L.
    """
    sums, counts = torch.zeros(length, dtype=torch.float64), torch.zeros(length, dtype=torch.int64)
    for windows, known in batches:
        inputs, targets = inputs_and_targets(windows)
        logits = model(inputs).float()
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        new = losses.view(targets.shape)[:, known:].cpu().double()  # not every device has fp64
        sums[known : targets.shape[1]] += new.sum(0)
        counts[known : targets.shape[1]] += len(new)
    return sums, counts
