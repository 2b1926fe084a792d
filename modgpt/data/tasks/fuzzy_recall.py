"""Fuzzy recall: keys and values are groups of letters."""

from __future__ import annotations

from itertools import takewhile
from typing import Any

import numpy as np

from modgpt.data.tasks.base import TaskDataModule, Tokens, at_least

Group = tuple[int, ...]


class FuzzyRecallDataModule(TaskDataModule):
    """Pairs of a key and a value of several letters; then the keys again, each asked for its value.

        reads   ABxCzyACvABxCzyACv..
        wanted            x zy  v

    The first half of the letters are those of keys, the second half those of values. A group has 1 to
    `group` different letters, all sizes equally probable. Keys of one sequence differ, but may share
    letters: the model must look at the whole key. It reads a value up to the letter that it predicts.

    Source: Poli et al. 2024 (MAD), arXiv 2403.17844: fuzzy in-context recall. There the pairs repeat at
    random, and the keys of the evaluation have the largest size.

    Args:
        vocabulary: V, half for keys and half for values.
        pairs: number of pairs per sequence; null for the largest number that always fits.
        group: largest number of letters in a key or a value.
        base: as for `TaskDataModule`; the rest of a window is filled with markers.

    Raises:
        ValueError: V is odd or too small for the pairs, or a window is too short for them.
    """

    markers = "."
    settings = ("pairs", "group")

    def __init__(self, *, pairs: int | None, group: int, **base: Any) -> None:
        super().__init__(**base)
        at_least(1, group=group)
        self.group = group
        self.pairs = self.block_size // (4 * group) if pairs is None else pairs
        at_least(1, pairs=self.pairs)
        least = 2 * max(self.pairs, group)
        if self.vocabulary % 2 or self.vocabulary < least:
            raise ValueError(
                f"data.vocabulary={self.vocabulary} must be even and at least {least}, for data.pairs="
                f"{self.pairs} and data.group={group}"
            )
        self.needs_length(4 * group * self.pairs, pairs=self.pairs)

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        inputs, targets = self.blank(n)
        for read, wanted in zip(inputs, targets, strict=True):
            pairs = self.pairs_of(rng)
            asked = [pairs[i] for i in rng.permutation(self.pairs)]
            end = 0
            for i, (key, value) in enumerate([*pairs, *asked]):
                start = end + len(key)
                read[end:start], end = key, start + len(value)
                read[start:end] = value
                if i >= self.pairs:
                    wanted[start - 1 : end - 1] = value
        return inputs, targets

    def pairs_of(self, rng: np.random.Generator) -> list[tuple[Group, Group]]:
        """Draw the keys and values of one sequence."""
        half, value_of = self.vocabulary // 2, dict[Group, Group]()
        while len(value_of) < self.pairs:
            key_size, value_size = rng.integers(1, self.group + 1, size=2)
            key = 1 + rng.permutation(half)[:key_size]
            value = 1 + half + rng.permutation(half)[:value_size]
            value_of.setdefault(tuple(key.tolist()), tuple(value.tolist()))
        return [*value_of.items()]

    def solve(self, read: list[int]) -> dict[int, int]:
        half, t = self.vocabulary // 2, 0
        value_of, answers = dict[Group, Group](), dict[int, int]()
        while t < len(read) and read[t]:
            key = tuple(takewhile(lambda letter: 1 <= letter <= half, read[t:]))
            t += len(key)
            if key in value_of:
                answers |= {t - 1 + i: letter for i, letter in enumerate(value_of[key])}
            else:
                value_of[key] = tuple(takewhile(lambda letter: letter > half, read[t:]))
            t += len(value_of[key])
        return answers

    @property
    def chance(self) -> float:
        """2/V: the values have half of the letters."""
        return 2 / self.vocabulary
