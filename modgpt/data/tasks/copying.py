"""Copying: read a string, then write it again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from modgpt.data.batch import IGNORED
from modgpt.data.tasks.base import TaskDataModule


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

    marker = ">"

    def __init__(self, *, length: int | None, **base: Any) -> None:
        super().__init__(**base)
        longest = self.block_size // 2
        self.length = longest if length is None else length
        if self.length < 1:
            raise ValueError(f"data.length must be at least 1, got {self.length}")
        if self.length > longest:
            raise ValueError(
                f"data.length={self.length} needs at least model.block_size={2 * self.length}, for "
                f"the string and its copy, got {self.block_size}"
            )

    def definition(self) -> dict[str, Any]:
        return {
            "task": "copy",
            "vocabulary": self.vocabulary,
            "string": self.length,
            "length": self.block_size,
            "val_sequences": self.val_sequences,
        }

    def draw(self, rng: np.random.Generator, n: int) -> Tensor:
        length = self.length
        string = rng.integers(1, self.vocabulary + 1, size=(n, length))
        inputs = np.zeros((n, self.block_size), dtype=np.int64)
        targets = np.full_like(inputs, IGNORED)
        inputs[:, :length] = string  # then the marker
        inputs[:, length + 1 : 2 * length] = string[:, :-1]  # the last letter is only written
        targets[:, length : 2 * length] = string
        return torch.from_numpy(np.stack([inputs, targets]))
