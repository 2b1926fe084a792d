"""Addition: the sum of two numbers, its lowest digit first."""

from __future__ import annotations

from typing import Any

import numpy as np

from modgpt.data.tasks.base import TaskDataModule, Tokens, at_least


class AdditionDataModule(TaskDataModule):
    """Problems of two numbers with as many digits each; the sum is asked for with its last digit first.

        reads   95+27=22 40+13=35
        wanted       221      350

    Written in this order, each digit of the sum follows from two digits and a carry. The model reads the
    sum up to the digit that it predicts.

    Source: Lee et al. 2023, "Teaching arithmetic to small Transformers", arXiv 2307.03381: the reversed
    format. Here a window holds several problems, and the sum always has digits + 1 digits.

    Args:
        digits: of each number, with leading zeros.
        number_base: 10 for decimal numbers, 2 for binary ones.
        base: as for `TaskDataModule`; the rest of a window is filled with blanks.

    Raises:
        ValueError: a window is shorter than a problem, or the number base is not in 2 … 10.
    """

    markers = " +"  # then the digits, then =
    settings = ("digits", "number_base")

    def __init__(self, *, digits: int, number_base: int, **base: Any) -> None:
        if not 2 <= number_base <= 10:
            raise ValueError(f"data.number_base must be 2 to 10, got {number_base}")
        super().__init__(vocabulary=number_base + 1, **base)
        at_least(1, digits=digits)
        self.needs_length(3 * digits + 3, digits=digits)
        self.digits, self.number_base = digits, number_base

    def symbols(self) -> str:
        return "0123456789"[: self.number_base] + "="

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        inputs, targets = self.blank(n)
        d, size = self.digits, 3 * self.digits + 3
        for start in range(0, self.block_size - size + 1, size):
            a, b = rng.integers(self.number_base, size=(2, n, d))
            total, carry = np.zeros((n, d + 1), dtype=np.int64), np.zeros(n, dtype=np.int64)
            for i in range(d):
                carry, total[:, i] = np.divmod(a[:, -1 - i] + b[:, -1 - i] + carry, self.number_base)
            total[:, d] = carry
            problem, answer = inputs[:, start : start + size], targets[:, start : start + size]
            problem[:, :d], problem[:, d], problem[:, d + 1 : 2 * d + 1] = 2 + a, 1, 2 + b
            problem[:, 2 * d + 1] = 2 + self.number_base  # the sign =
            problem[:, 2 * d + 2 : -1] = 2 + total[:, :-1]  # the last digit is only written
            answer[:, 2 * d + 1 : -1] = 2 + total
        return inputs, targets

    def solve(self, read: list[int]) -> dict[int, int]:
        answers = dict[int, int]()
        for t, token in enumerate(read):
            if token == 2 + self.number_base:
                numbers = (
                    read[t - 2 * self.digits - 1 : t - self.digits - 1],
                    read[t - self.digits : t],
                )
                a, b = (int("".join(str(x - 2) for x in x_), self.number_base) for x_ in numbers)
                for i in range(self.digits + 1):
                    answers[t + i] = 2 + (a + b) // self.number_base**i % self.number_base
        return answers

    @property
    def chance(self) -> float:
        """((1 + b⁻ⁿ)/2 + n/b)/(n + 1) for n digits in base b: a carry is less probable than none."""
        d, base = self.digits, self.number_base
        return (d / base + (1 + base**-d) / 2) / (d + 1)
