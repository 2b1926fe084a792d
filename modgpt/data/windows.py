"""Windows of T+1 tokens of one text: random ones for training, all of them for evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from modgpt.data.batch import EndlessBatches


class TrainingWindows(EndlessBatches):
    """Endless batches of windows at random starts.

    Args:
        tokens: (N,) ids.
        block_size: T.
        seed: of the series of windows.
        base: as for `EndlessBatches`.

    Yields: (batch_size/world_size, T+1), with inputs in columns 0 … T−1 and targets in 1 … T.
    """

    def __init__(self, tokens: Tensor, *, block_size: int, seed: int, **base: Any) -> None:
        super().__init__(**base)
        self.tokens, self.seed = tokens, seed
        self.offsets = torch.arange(block_size + 1)
        self.n_starts = len(tokens) - block_size

    def draw(self, index: int) -> Tensor:
        # NumPy's seed sequence mixes both numbers well. A torch generator takes one seed of 32 bits.
        generator = np.random.default_rng((self.seed, index))
        starts = torch.from_numpy(generator.integers(self.n_starts, size=self.portion))
        return self.tokens[starts[:, None] + self.offsets]  # (B,1) + (T+1,) -> (B,T+1)


class EvaluationWindows(Dataset[Tensor]):
    """Windows that together contain all N−1 targets of a split, each once.

    Consecutive windows share one token: the last target of one is the first input of the next. The rest
    at the end is a batch of one shorter window.

    Args:
        tokens: (N,) ids.
        block_size: T.
        batch_size: windows per batch.
        rank, world_size: this process takes every world_size-th window of each batch. Its share can be
            empty: all processes have the same number of batches, so that no process waits for another.

    Items: (b, T+1); the last one is (1, r+1) with r = (N−1) mod T, unless r is 0.
    """

    def __init__(
        self,
        tokens: Tensor,
        *,
        block_size: int,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        batches: list[Tensor] = []
        n_full = (len(tokens) - 1) // block_size
        if n_full:
            batches += (
                tokens[: n_full * block_size + 1].unfold(0, block_size + 1, block_size).split(batch_size)
            )
        rest = tokens[n_full * block_size :]
        if len(rest) > 1:
            batches.append(rest[None])
        self.batches = [batch[rank::world_size] for batch in batches]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Tensor:
        return self.batches[index]
