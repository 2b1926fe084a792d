"""Parity: has the number of ones been odd so far?"""

from __future__ import annotations

from typing import Any

import numpy as np

from modgpt.data.tasks.base import TaskDataModule, Tokens


class ParityDataModule(TaskDataModule):
    """Random bits; at every bit the parity of all bits up to it is asked.

        reads   0110100
        wanted  0100111

    One changed bit changes all later answers. A state that can flip solves it at any length; attention
    must count.

    Source: Hahn 2020, "Theoretical limitations of self-attention in neural sequence models",
    arXiv 1906.06755, section 4, asked at every token and not only at the last one.

    Args:
        base: as for `TaskDataModule`; a window holds `block_size` bits.
    """

    markers = ""

    def __init__(self, **base: Any) -> None:
        super().__init__(vocabulary=2, **base)

    def symbols(self) -> str:
        return "01"

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        bits = rng.integers(2, size=(n, self.block_size))
        return bits, bits.cumsum(axis=1) % 2

    def solve(self, read: list[int]) -> dict[int, int]:
        return {t: read[: t + 1].count(1) % 2 for t in range(len(read))}

    @property
    def chance(self) -> float:
        """1/2."""
        return 1 / 2
