"""Windows of a text in which every target counts once, and the losses of these targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from modgpt.data.batch import inputs_and_targets
from modgpt.data.token_ids import Ids
from modgpt.data.windows import as_tensor

# Most tokens of a batch, and most scores per head: the memory of a batch is bounded at every length.
MOST_TOKENS, MOST_SCORES = 2**14, 2**24


def cut(ids: Ids, length: int, stride: int) -> list[tuple[Ids, int]]:
    """Batches of windows in which each of the N−1 targets is new exactly once.

    A window starts every `stride` tokens. All targets of the first window are new. In each other window
    the last `stride` are new: the window before has counted the earlier ones. The rest at the end of the
    text is a shorter window.

    Args:
        ids: (N,), N > length; in memory or mapped from a file.
        length: L.
        stride: tokens from one window to the next, 1 … L.

    Returns:
        Pairs of windows (b,L+1), which share the memory of `ids`, and the number of targets at their
        beginning that are not new.
    """
    windows = sliding_window_view(ids, length + 1)[::stride]
    known = length - stride
    end = (len(windows) - 1) * stride + length  # the last target in a full window
    size = max(1, min(MOST_TOKENS // length, MOST_SCORES // length**2))
    batches = [(windows[:1], 0)]
    batches += [(windows[i : i + size], known) for i in range(1, len(windows), size)]
    if end < len(ids) - 1:
        batches.append((ids[None, len(windows) * stride :], known))
    return batches


@torch.inference_mode()
def loss_by_position(
    model: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Ids, int]],
    length: int,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Sum of the losses of all new targets at each position, and their number: (L,) each.

    Args:
        model: tokens (b,T) -> logits (b,T,V).
        batches: as `cut` returns them.
        length: L.
        device: of the model.
    """
    sums, counts = torch.zeros(length, dtype=torch.float64), torch.zeros(length, dtype=torch.int64)
    for windows, known in batches:
        inputs, targets = inputs_and_targets(as_tensor(windows).to(device))
        logits = model(inputs).float()
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        new = losses.view(targets.shape)[:, known:].cpu().double()  # not every device has fp64
        sums[known : targets.shape[1]] += new.sum(0)
        counts[known : targets.shape[1]] += len(new)
    return sums, counts
