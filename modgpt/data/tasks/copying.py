"""Copying: read a string, then write it again."""

from __future__ import annotations

from typing import Any

import numpy as np

from modgpt.data.tasks.base import TaskDataModule, Tokens, at_least


class CopyDataModule(TaskDataModule):
    """A random string, the marker, and the string again. Only the second string counts.

        reads   QXBAF>QXBA>>
        wanted       QXBAF

    Source: Graves et al. 2014, "Neural Turing Machines", section 4.1, as next-token prediction: the
    model reads the copy up to the letter that it predicts.

    Args:
        vocabulary: V, number of letters, all equally probable.
        length: of the string; null for the longest that fits, half of `block_size`.
        base: as for `TaskDataModule`; the rest of a window is filled with markers.

    Raises:
        ValueError: the string does not fit twice into a window.
    """

    markers = ">"
    settings = ("length",)

    def __init__(self, *, length: int | None, **base: Any) -> None:
        super().__init__(**base)
        self.length = self.block_size // 2 if length is None else length
        at_least(1, length=self.length)
        self.needs_length(2 * self.length, length=self.length)

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        inputs, targets = self.blank(n)
        length = self.length
        string = rng.integers(1, self.vocabulary + 1, size=(n, length))
        inputs[:, :length] = string  # then the marker
        inputs[:, length + 1 : 2 * length] = string[:, :-1]  # the last letter is only written
        targets[:, length : 2 * length] = string
        return inputs, targets

    def solve(self, read: list[int]) -> dict[int, int]:
        marker = read.index(0)
        return {marker + i: token for i, token in enumerate(read[:marker])}

    @property
    def chance(self) -> float:
        """1/V."""
        return 1 / self.vocabulary
