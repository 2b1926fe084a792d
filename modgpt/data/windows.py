"""Windows of T+1 tokens of one text: random ones for training, all of them for evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor
from torch.utils.data import Dataset

from modgpt.data.batch import EndlessBatches
from modgpt.data.token_ids import Ids


class TrainingWindows(EndlessBatches):
    """Endless batches of windows at random starts.

    Args:
        tokens: (N,) ids, in memory or mapped from a file.
        block_size: T.
        seed: of the series of windows.
        base: as for `EndlessBatches`.

    Yields: (batch_size/world_size, T+1), with inputs in columns 0 … T−1 and targets in 1 … T.
    """

    def __init__(self, tokens: Ids, *, block_size: int, seed: int, **base: Any) -> None:
        super().__init__(**base)
        self.tokens, self.seed = tokens, seed
        self.offsets = np.arange(block_size + 1)
        self.n_starts = len(tokens) - block_size

    def draw(self, index: int) -> Tensor:
        # NumPy's seed sequence mixes both numbers well. A torch generator takes one seed of 32 bits.
        generator = np.random.default_rng((self.seed, index))
        starts = generator.integers(self.n_starts, size=self.portion)
        return as_tensor(self.tokens[starts[:, None] + self.offsets])  # (B,1) + (T+1,) -> (B,T+1)


class EvaluationWindows(Dataset[Tensor]):
    """Windows that together contain all N−1 targets of a split, each once.

    Consecutive windows share one token: the last target of one is the first input of the next. Of n
    batches, batch j has the windows j, j+n, j+2n, …: each is an even sample of the text, so that the
    first few can stand for all of them. The rest at the end is a last batch of one shorter window.

    Args:
        tokens: (N,) ids, in memory or mapped from a file.
        block_size: T.
        batch_size: windows per batch.
        rank, world_size: this process takes every world_size-th window of each batch. Its share can be
            empty: all processes have the same number of batches, so that no process waits for another.

    Items: (b, T+1); the last one is (1, r+1) with r = (N−1) mod T, unless r is 0.
    """

    def __init__(
        self,
        tokens: Ids,
        *,
        block_size: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.tokens, self.block_size, self.batch_size = tokens, block_size, batch_size
        self.rank, self.world_size = rank, world_size
        self.full, self.rest = divmod(max(0, len(tokens) - 1), block_size)  # windows, targets after them
        self.batches = -(-self.full // batch_size)  # of full windows

    def __len__(self) -> int:
        return self.batches + (self.rest > 0)

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index == self.batches:  # the short window at the end
            batch = self.tokens[None, self.full * self.block_size :]
        else:
            stretch = self.tokens[: self.full * self.block_size + 1]
            windows = sliding_window_view(stretch, self.block_size + 1)[:: self.block_size]
            batch = windows[index :: self.batches]
        return as_tensor(batch[self.rank :: self.world_size])

    def order(self) -> Tensor:
        """The place in the text of each window, in the order of the batches: (windows,)."""
        full = [torch.arange(j, self.full, self.batches) for j in range(self.batches)]
        return torch.cat([*full, torch.arange(self.full, self.full + (self.rest > 0))])


def as_tensor(ids: Ids) -> Tensor:
    """Ids as the int64 that an embedding takes."""
    return torch.from_numpy(ids.astype(np.int64))
