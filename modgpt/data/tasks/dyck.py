"""Dyck: which bracket closes now?"""

from __future__ import annotations

from typing import Any

import numpy as np

from modgpt.data.tasks.base import TaskDataModule, Tokens, at_least

BRACKETS = "()<>[]{}"


class DyckDataModule(TaskDataModule):
    """Nested brackets; after a closing bracket the one that would close next is asked, if one is open.

        reads   ([]{()})<[]
        wanted    )  })   >

    The answer is the partner of the last bracket that is still open: the model needs a stack. After an
    opening bracket the answer would be its partner, so nothing is asked there. Every sequence begins
    with two opening brackets and a closing one, so that it has a question.

    Source: Hewitt et al. 2020, "RNNs can generate bounded hierarchical languages with optimal memory",
    arXiv 2010.07515: Dyck-(k,m). Below the largest depth a bracket opens or closes with probability 1/2.

    Args:
        kinds: k, number of kinds of brackets, all equally probable.
        depth: m, largest number of open brackets.
        base: as for `TaskDataModule`; sequences end where the window ends, with brackets open.

    Raises:
        ValueError: there are not so many kinds, the depth is below 2, or a window is shorter than 3.
    """

    markers = ""
    settings = ("kinds", "depth")

    def __init__(self, *, kinds: int, depth: int, **base: Any) -> None:
        if not 1 <= kinds <= len(BRACKETS) // 2:
            raise ValueError(f"data.kinds must be 1 to {len(BRACKETS) // 2}, got {kinds}")
        super().__init__(vocabulary=2 * kinds, **base)
        at_least(2, depth=depth)
        self.needs_length(3, depth=depth)
        self.kinds, self.depth = kinds, depth

    def symbols(self) -> str:
        return BRACKETS[: self.vocabulary]  # token 2i opens and 2i + 1 closes

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        inputs, targets = self.blank(n)
        rows, stack, height = (
            np.arange(n),
            np.zeros((n, self.depth + 1), dtype=np.int64),
            np.zeros(n, dtype=np.int64),
        )
        kinds, coins = rng.integers(self.kinds, size=inputs.shape), rng.random(inputs.shape) < 0.5
        coins[:, :3] = True, True, False
        for t in range(self.block_size):
            opens = (height == 0) | (coins[:, t] & (height < self.depth))
            inputs[:, t] = np.where(opens, 2 * kinds[:, t], stack[rows, height] + 1)
            height += np.where(opens, 1, -1)
            stack[rows[opens], height[opens]] = inputs[opens, t]
            asked = ~opens & (height > 0)
            targets[asked, t] = stack[rows, height][asked] + 1
        return inputs, targets

    def solve(self, read: list[int]) -> dict[int, int]:
        stack, answers = list[int](), dict[int, int]()
        for t, token in enumerate(read):
            if token % 2 == 0:
                stack.append(token)
                continue
            stack.pop()
            if stack:
                answers[t] = stack[-1] + 1
        return answers

    @property
    def chance(self) -> float:
        """1/k."""
        return 1 / self.kinds
