"""What a batch is: tokens, or inputs with the targets that count."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from torch import Tensor
from torch.utils.data import IterableDataset

IGNORED = -100  # a target that is not asked for; PyTorch's cross-entropy leaves it out of its mean


def inputs_and_targets(batch: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and targets, (B,T) each.

    Args:
        batch: (B,T+1) tokens of a text, in which every token is the target of the one before it; or
            (2,B,T), the inputs and beside them the targets, `IGNORED` where nothing is asked.
    """
    return (batch[0], batch[1]) if batch.dim() == 3 else (batch[:, :-1], batch[:, 1:])


class EndlessBatches(IterableDataset[Tensor]):
    """Training batches without end; batch n is a function of the data's seed and n alone.

    So a resumed run goes on with the batches an uninterrupted one would have seen, and runs that differ
    in their parts alone see the same data in the same order.

    Args:
        first: index of the first batch.
    """

    def __init__(self, first: int) -> None:
        self.first = first

    @abstractmethod
    def batch(self, index: int) -> Tensor:
        """Batch number `index`."""

    def __iter__(self) -> Iterator[Tensor]:
        index = self.first
        while True:
            yield self.batch(index)
            index += 1
