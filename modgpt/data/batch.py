"""The format of a batch, and the endless series of training batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

IGNORED = -100  # a target that does not count: PyTorch's cross-entropy skips it


def inputs_and_targets(batch: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and targets, (B,T) each.

    Args:
        batch: (B,T+1) tokens of a text, where each token is the target of the one before it; or
            (2,B,T), inputs and targets, `IGNORED` where a target does not count.
    """
    return (batch[0], batch[1]) if batch.dim() == 3 else (batch[:, :-1], batch[:, 1:])


class EndlessBatches(IterableDataset[Tensor]):
    """Training batches from an endless series of sequences, which depends on the data seed alone.

    A resumed run continues with the next unseen sequence, even if its batch size has changed. Runs that
    differ only in their parts see the same data in the same order.

    The series is drawn in portions, each with its own random generator. The size of a portion is the
    batch size with which the run began.

    Args:
        batch_size: sequences per batch, over all ranks.
        portion: sequences drawn at a time; None for `batch_size`.
        first: index of the first sequence.
        rank, world_size: this process takes every world_size-th sequence of each batch.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        portion: int | None = None,
        first: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.batch_size, self.first = batch_size, first
        self.portion = batch_size if portion is None else portion
        self.rank, self.world_size = rank, world_size

    @abstractmethod
    def draw(self, index: int) -> Tensor:
        """Portion number `index`; its second-to-last dimension counts the sequences."""

    def batch(self, index: int) -> Tensor:
        """This process's share of batch number `index`, where batch 0 starts at sequence `first`."""
        start = self.first + index * self.batch_size
        end = start + self.batch_size
        portions = range(start // self.portion, -(-end // self.portion))
        drawn = torch.cat([self.draw(n) for n in portions], dim=-2)
        skipped = portions.start * self.portion
        return drawn[..., start - skipped + self.rank : end - skipped : self.world_size, :]

    def __iter__(self) -> Iterator[Tensor]:
        index = 0
        while True:
            yield self.batch(index)
            index += 1
