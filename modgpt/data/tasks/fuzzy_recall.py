"""Fuzzy recall: keys and values are groups of letters."""

from __future__ import annotations

from typing import Any

import numpy as np

from modgpt.data.tasks.base import TaskDataModule, Tokens, at_least


class FuzzyRecallDataModule(TaskDataModule):
    """Pairs of a key and a value of several letters; then the keys again, each asked for its value.

        reads   ABxCzyACvABxCzyACv..
        wanted             x zy v

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
        half = self.vocabulary // 2
        for i in range(n):
            value_of = dict[tuple[int, ...], tuple[int, ...]]()
            while len(value_of) < self.pairs:
                key, value = (
                    tuple(rng.permutation(half)[:size]) for size in rng.integers(1, self.group + 1, 2)
                )
                value_of.setdefault(key, value)
            pairs = [*value_of.items()]
            order = rng.permutation(self.pairs)
            end = 0
            for j, (key, value) in enumerate([*pairs, *(pairs[o] for o in order)]):
                start, end = end + len(key), end + len(key) + len(value)
                inputs[i, start - len(key) : start] = [1 + x for x in key]
                inputs[i, start:end] = [1 + half + x for x in value]
                if j >= self.pairs:
                    targets[i, start - 1 : end - 1] = inputs[i, start:end]
        return inputs, targets

    def solve(self, read: list[int]) -> dict[int, int]:
        half = self.vocabulary // 2
        value_of, answers = dict[tuple[int, ...], list[int]](), dict[int, int]()
        t = 0
        while t < len(read) and read[t]:
            start = next(i for i in range(t, len(read)) if read[i] > half)
            key = tuple(read[t:start])
            if key in value_of:
                answers |= {start - 1 + i: letter for i, letter in enumerate(value_of[key])}
                t = start + len(value_of[key])
            else:
                t = next((i for i in range(start, len(read)) if read[i] <= half), len(read))
                value_of[key] = read[start:t]
        return answers

    @property
    def chance(self) -> float:
        return 2 / self.vocabulary
