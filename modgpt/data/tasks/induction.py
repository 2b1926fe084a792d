"""Induction heads: what followed the last time?"""

from __future__ import annotations

from typing import Any

import numpy as np

from modgpt.data.tasks.base import TaskDataModule, Tokens


class InductionDataModule(TaskDataModule):
    """Random letters with a mark at a random place and at the end, where the letter after it is asked.

        reads   QXB!AFQCX!
        wanted           A

    Two attention layers solve it with an induction head: the first lets every token know the one before
    it, the second looks for a token that follows the mark. A sequence has one question.

    Source: Fu et al. 2022, "Hungry Hungry Hippos" (H3), arXiv 2212.14052, section 3.1; the mechanism:
    Olsson et al. 2022, "In-context learning and induction heads", arXiv 2209.11895.

    Args:
        vocabulary: V, number of letters, all equally probable.
        base: as for `TaskDataModule`.

    Raises:
        ValueError: a window is shorter than three tokens.
    """

    markers = "!"

    def __init__(self, **base: Any) -> None:
        super().__init__(**base)
        self.needs_length(3, vocabulary=self.vocabulary)

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        inputs, targets = self.blank(n)
        last, rows = self.block_size - 1, np.arange(n)
        inputs[:, :last] = rng.integers(1, 1 + self.vocabulary, size=(n, last))
        mark = rng.integers(last - 1, size=n)
        inputs[rows, mark] = 0
        targets[:, last] = inputs[rows, mark + 1]
        return inputs, targets

    def solve(self, read: list[int]) -> dict[int, int]:
        return {len(read) - 1: read[read.index(0) + 1]}

    @property
    def chance(self) -> float:
        """1/V."""
        return 1 / self.vocabulary
