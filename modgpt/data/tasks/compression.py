"""Compression: keep a whole string, and give the letter at any place of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from modgpt.data.tasks.base import TaskDataModule, Tokens, at_least, letters


class CompressionDataModule(TaskDataModule):
    """A random string, then all its places in random order, where the letters there are asked for.

        reads   BACBwzxy
        wanted      BBAC

    The last letters of the alphabet name the places (here w x y z). The string has length · log₂ V bits,
    and a model with a state of fixed size must keep all of them before it knows the questions.

    Source: Poli et al. 2024 (MAD), arXiv 2403.17844, where an auto-encoder is trained: a second network
    rebuilds the letter of a place from that place and the last hidden vector alone. A language model has
    no such bottleneck. Here a place is a token that the model reads, and attention may look back.

    Args:
        vocabulary: V, number of letters of the string, all equally probable.
        length: of the string; null for the longest that fits, half of `block_size`.
        base: as for `TaskDataModule`; the rest of a window is filled with markers.

    Raises:
        ValueError: the string and its places do not fit into a window.
    """

    markers = "."
    settings = ("length",)

    def __init__(self, *, length: int | None, **base: Any) -> None:
        super().__init__(**base)
        self.length = self.block_size // 2 if length is None else length
        at_least(1, length=self.length)
        self.needs_length(2 * self.length, length=self.length)

    def symbols(self) -> str:
        return letters(self.vocabulary + self.length)

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        inputs, targets = self.blank(n)
        length = self.length
        string = rng.integers(1, 1 + self.vocabulary, size=(n, length))
        places = rng.permuted(np.tile(np.arange(length), (n, 1)), axis=1)
        inputs[:, :length] = string
        inputs[:, length : 2 * length] = 1 + self.vocabulary + places
        targets[:, length : 2 * length] = np.take_along_axis(string, places, axis=1)
        return inputs, targets

    def solve(self, read: list[int]) -> dict[int, int]:
        first = 1 + self.vocabulary  # of the places
        return {t: read[token - first] for t, token in enumerate(read) if token >= first}

    @property
    def chance(self) -> float:
        """1/V."""
        return 1 / self.vocabulary
