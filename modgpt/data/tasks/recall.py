"""Multi-query associative recall: what was the value of this key?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from modgpt.data.batch import IGNORED
from modgpt.data.tasks.base import TaskDataModule


class RecallDataModule(TaskDataModule):
    """Pairs of a key and its value, then the keys again in random places: at each, its value is asked.

        reads   AxCzBy....C...A.....B...
        wanted            z   x     y

    Keys are the first half of the letters, values the second; in one sequence no letter occurs in two
    pairs. A model whose state has a fixed size must fit all pairs into it before it knows what will be
    asked; attention looks the key up.

    Source: Arora et al. 2023, "Zoology", section 3 and appendix, as in their code: query places are two
    tokens apart, counted from the end of the pairs; key i is asked at place g with a probability in
    proportion to g^(power−1), g = 1, 2, …, among the places that are still free.

    Args:
        vocabulary: V, half of it keys and half values.
        pairs: of a key and its value, per sequence; each key is asked once. Null for as many as a window
            can list and ask, `block_size`/4: then every place is a query.
        power: a in g^(a−1); 1 for uniform places, close to 0 for mostly early ones.
        base: as for `TaskDataModule`; the sequences have `block_size` tokens.

    Raises:
        ValueError: the vocabulary is odd or has too few letters for the pairs, a sequence is too short
            for them, or the power is not positive.
    """

    marker = "."

    def __init__(self, *, vocabulary: int, pairs: int | None, power: float, **base: Any) -> None:
        super().__init__(vocabulary=vocabulary, **base)
        if pairs is None:
            pairs = self.block_size // 4
        if pairs < 1:
            raise ValueError(f"data.pairs must be at least 1, got {pairs}")
        if vocabulary % 2 or vocabulary < 2 * pairs:
            raise ValueError(
                f"data.vocabulary={vocabulary} must be even and at least {2 * pairs}, for data.pairs="
                f"{pairs} different keys and as many values"
            )
        if self.block_size < 4 * pairs:
            raise ValueError(
                f"data.pairs={pairs} need model.block_size={4 * pairs} at least, to be listed and "
                f"asked, got {self.block_size}"
            )
        if power <= 0:
            raise ValueError(f"data.power must be positive, got {power}")
        self.pairs, self.power = pairs, power

    def definition(self) -> dict[str, Any]:
        return {
            "task": "recall",
            "vocabulary": self.vocabulary,
            "pairs": self.pairs,
            "power": self.power,
            "length": self.block_size,
            "val_sequences": self.val_sequences,
        }

    def draw(self, rng: np.random.Generator, n: int) -> Tensor:
        half, listed = self.vocabulary // 2, 2 * self.pairs
        keys = 1 + without_replacement(rng, np.ones(half), n, self.pairs)  # (n,P)
        values = 1 + half + without_replacement(rng, np.ones(half), n, self.pairs)
        gaps = np.arange(1, (self.block_size - listed) // 2 + 1)
        places = listed + 2 * without_replacement(rng, gaps ** (self.power - 1), n, self.pairs)
        inputs = np.zeros((n, self.block_size), dtype=np.int64)
        targets = np.full_like(inputs, IGNORED)
        inputs[:, 0:listed:2], inputs[:, 1:listed:2] = keys, values
        np.put_along_axis(inputs, places, keys, axis=1)
        np.put_along_axis(targets, places, values, axis=1)
        return torch.from_numpy(np.stack([inputs, targets]))


def without_replacement(rng: np.random.Generator, weights: np.ndarray, n: int, k: int) -> np.ndarray:
    """n times k different indices of `weights` (M,): (n,k).

    One after the other, with probabilities in proportion to the weights of those still there; all at
    once, as the k largest of log w + Gumbel noise (Kool et al. 2019, section 2.3).
    """
    keys = np.log(weights) + rng.gumbel(size=(n, len(weights)))
    return np.argsort(-keys, axis=1)[:, :k]
