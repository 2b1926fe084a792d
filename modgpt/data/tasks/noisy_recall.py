"""Noisy recall: find the value of a key among letters that mean nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from modgpt.data.tasks.base import TaskDataModule, Tokens


class NoisyRecallDataModule(TaskDataModule):
    """Pairs of a key and its value, and pairs of noise. A key that comes again is asked for its value.

        reads   AeqrBfAesqBf
        wanted        e   f

    The letters are, in this order, V/4 keys, V/4 values and V/2 letters of noise. The values of a
    sequence are drawn anew, one for every key. Two keys may have the same value.

    Source: Poli et al. 2024 (MAD), arXiv 2403.17844: noisy in-context recall, with several questions per
    sequence; in-context recall with `noise` 0. As there, the first pair and the last question are never
    noise.

    Args:
        vocabulary: V, a multiple of 4.
        noise: probability that a pair is two letters of noise.
        base: as for `TaskDataModule`; a window holds `block_size`/2 pairs.

    Raises:
        ValueError: V is not a multiple of 4, a window is shorter than two pairs, or `noise` is not in
            [0, 1).
    """

    markers = "."  # at the end of a window with an odd number of tokens
    settings = ("noise",)

    def __init__(self, *, noise: float, **base: Any) -> None:
        super().__init__(**base)
        if self.vocabulary % 4:
            raise ValueError(f"data.vocabulary must be a multiple of 4, got {self.vocabulary}")
        if not 0 <= noise < 1:
            raise ValueError(f"data.noise must be at least 0 and below 1, got {noise}")
        self.needs_length(4, vocabulary=self.vocabulary)
        self.noise, self.keys = noise, self.vocabulary // 4

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        inputs, targets = self.blank(n)
        pairs, k, rows = self.block_size // 2, self.keys, np.arange(n)
        values = rng.integers(k + 1, 2 * k + 1, size=(n, k))  # of every key
        keys = rng.integers(k, size=(n, pairs))
        noisy = rng.random((n, pairs)) < self.noise
        noisy[:, [0, -1]] = False
        again = rng.integers(pairs - 1, size=n)  # the pair that the last question repeats
        keys[:, -1] = keys[rows, np.where(noisy[rows, again], 0, again)]
        noise = rng.integers(2 * k + 1, 4 * k + 1, size=(n, pairs, 2))
        seen = np.zeros((n, k), dtype=bool)
        for i in range(pairs):
            key, clean = keys[:, i], ~noisy[:, i]
            value = values[rows, key]
            inputs[:, 2 * i] = np.where(clean, 1 + key, noise[:, i, 0])
            inputs[:, 2 * i + 1] = np.where(clean, value, noise[:, i, 1])
            asked = clean & seen[rows, key]
            targets[asked, 2 * i] = value[asked]
            seen[rows[clean], key[clean]] = True
        return inputs, targets

    def solve(self, read: list[int]) -> dict[int, int]:
        value_of, answers = dict[int, int](), dict[int, int]()
        for t in range(0, len(read) - 1, 2):
            key, value = read[t], read[t + 1]
            if 1 <= key <= self.keys:
                if key in value_of:
                    answers[t] = value_of[key]
                value_of.setdefault(key, value)
        return answers

    @property
    def chance(self) -> float:
        """4/V: a fourth of the letters are values."""
        return 1 / self.keys
