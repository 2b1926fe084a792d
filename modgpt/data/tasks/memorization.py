"""Memorization: learn a table by heart."""

from __future__ import annotations

from typing import Any

import numpy as np

from modgpt.data.tasks.base import TaskDataModule, Tokens


class MemorizationDataModule(TaskDataModule):
    """Keys in random order; after each its value is asked, from a table that never changes.

        reads   A?C?B?C?
        wanted   x y z y

    The first half of the letters are keys, the second half values, each the value of one key. A sequence
    says nothing about the table: the model keeps it in its weights. Training and validation ask for the
    same table in different sequences, so validation measures how much of it was learned, and not whether
    it generalises. The table is part of the task: `table_seed` draws it, and the seed of a run does not
    change it.

    Source: Poli et al. 2024 (MAD), arXiv 2403.17844.

    Args:
        vocabulary: V, half keys and half values.
        table_seed: draws the table.
        base: as for `TaskDataModule`; a window holds `block_size`/2 keys.

    Raises:
        ValueError: V is odd, a window is shorter than two tokens, or the seed is negative.
    """

    markers = "?"
    settings = ("table_seed",)

    def __init__(self, *, table_seed: int, **base: Any) -> None:
        super().__init__(**base)
        if self.vocabulary % 2:
            raise ValueError(f"data.vocabulary must be even, got {self.vocabulary}")
        if table_seed < 0:
            raise ValueError(f"data.table_seed must not be negative, got {table_seed}")
        self.needs_length(2, vocabulary=self.vocabulary)
        self.table_seed, half = table_seed, self.vocabulary // 2
        self.table = 1 + half + np.random.default_rng(table_seed).permutation(half)

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        inputs, targets = self.blank(n)
        keys = rng.integers(self.vocabulary // 2, size=(n, self.block_size // 2))
        end = 2 * keys.shape[1]
        inputs[:, 0:end:2] = 1 + keys
        targets[:, 1:end:2] = self.table[keys]
        return inputs, targets

    def solve(self, read: list[int]) -> dict[int, int]:
        return {t + 1: int(self.table[read[t] - 1]) for t in range(0, len(read) - 1, 2)}

    @property
    def chance(self) -> float:
        """2/V: half of the letters are values."""
        return 2 / self.vocabulary
