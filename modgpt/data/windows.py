"""Windows of T+1 tokens, cut from one tensor: random ones to train on, all of them to evaluate on."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from modgpt.data.batch import EndlessBatches


class TrainingWindows(EndlessBatches):
    """Endless batches of windows at random starts; batch n is a function of (seed, n) alone.

    Args:
        tokens: (N,) ids.
        block_size: T.
        batch_size: windows per batch, over all ranks.
        seed: of the order.
        first: index of the first batch.
        rank, world_size: this process takes every world_size-th window of each batch.

    Yields: (batch_size/world_size, T+1), inputs in columns 0 … T−1, targets in 1 … T.
    """

    def __init__(
        self,
        tokens: Tensor,
        *,
        block_size: int,
        batch_size: int,
        seed: int,
        first: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(first)
        self.tokens, self.batch_size, self.seed = tokens, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.offsets = torch.arange(block_size + 1)
        self.n_starts = len(tokens) - block_size

    def batch(self, index: int) -> Tensor:
        """Batch number `index`: (batch_size/world_size, T+1)."""
        # NumPy's seed sequence mixes both numbers well; torch's generator keeps 32 bits of a seed.
        generator = np.random.default_rng((self.seed, index))
        starts = torch.from_numpy(generator.integers(self.n_starts, size=self.batch_size))
        starts = starts[self.rank :: self.world_size]
        return self.tokens[starts[:, None] + self.offsets]  # (B,1) + (T+1,) -> (B,T+1)


class EvaluationWindows(Dataset[Tensor]):
    """All N−1 targets of a split, each in exactly one window: windows overlap by the one token that is
    the last target of one and the first input of the next. What is left at the end is a shorter batch.

    Args:
        tokens: (N,) ids.
        block_size: T.
        batch_size: windows per batch.
        rank, world_size: this process takes every world_size-th window of each batch, which may be none:
            all processes have the same number of batches, so that none waits for another.

    Items: (b, T+1), the last one of all (1, r+1) with r = (N−1) mod T, where that is not 0.
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
