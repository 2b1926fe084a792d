"""Selective copying: write the letters of a sequence again and leave out the blanks."""

from __future__ import annotations

from typing import Any

import numpy as np

from modgpt.data.tasks.base import TaskDataModule, Tokens, at_least


class SelectiveCopyDataModule(TaskDataModule):
    """Letters at random places among blanks, then a marker, from which on the letters are asked for.

        reads   .A..B.C.>..
        wanted          ABC

    The places differ in every sequence, so a fixed shift cannot solve it: the model must decide by the
    content what it keeps. Answers are not fed back.

    Source: Poli et al. 2024, "Mechanistic Design and Scaling of Hybrid Architectures" (MAD),
    arXiv 2403.17844. Here every set of places is equally probable, and the first answer is asked at the
    marker, not one token later.

    Args:
        vocabulary: V, number of letters, all equally probable.
        length: number of letters to copy; null for a fourth of `block_size`.
        base: as for `TaskDataModule`.

    Raises:
        ValueError: a window is too short for the letters and the answers.
    """

    markers = ".>"
    settings = ("length",)

    def __init__(self, *, length: int | None, **base: Any) -> None:
        super().__init__(**base)
        self.length = self.block_size // 4 if length is None else length
        at_least(1, length=self.length)
        self.needs_length(2 * self.length, length=self.length)

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        inputs, targets = self.blank(n)
        start = self.block_size - self.length  # of the answers
        string = rng.integers(2, 2 + self.vocabulary, size=(n, self.length))
        places = np.sort(rng.permuted(np.tile(np.arange(start), (n, 1)), axis=1)[:, : self.length])
        np.put_along_axis(inputs, places, string, axis=1)
        inputs[:, start] = 1
        targets[:, start:] = string
        return inputs, targets

    def solve(self, read: list[int]) -> dict[int, int]:
        marker = read.index(1)
        return {marker + i: letter for i, letter in enumerate(t for t in read[:marker] if t)}

    @property
    def chance(self) -> float:
        """1/V."""
        return 1 / self.vocabulary
