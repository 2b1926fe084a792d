"""Multi-query associative recall: find the value of a key."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from modgpt.data.batch import IGNORED
from modgpt.data.tasks.base import TaskDataModule


class RecallDataModule(TaskDataModule):
    """Pairs of a key and a value, then the keys again at random places, where the values are asked for.

        reads   AxCzBy....C...A.....B...
        wanted            z   x     y

    The first half of the letters are keys, the second half are values. In one sequence no letter occurs
    in two pairs. A model with a state of fixed size must store all pairs before it knows the questions;
    attention looks up the key.

    Source: Arora et al. 2023, "Zoology", section 3 and appendix, as in their code. Query places are two
    tokens apart, counted from the end of the pairs. Each key takes a free place g = 1, 2, … with a
    probability proportional to g^(power−1).

    Args:
        vocabulary: V, half keys and half values.
        pairs: number of pairs per sequence; each key is asked for once. Null for `block_size`/4, the
            largest number that fits: then every place is a query.
        power: a in g^(a−1); 1 for uniform places, near 0 for mostly early places.
        base: as for `TaskDataModule`; the sequences have `block_size` tokens.

    Raises:
        ValueError: the vocabulary is odd or too small for the pairs, a sequence is too short for them,
            or the power is not positive.
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
                f"data.pairs={pairs} needs at least model.block_size={4 * pairs}, for the pairs "
                f"and the questions, got {self.block_size}"
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
    """n draws of k different indices of `weights` (M,): (n,k).

    The distribution is that of sequential draws with probabilities proportional to the remaining
    weights. It is computed as the k largest of log w + Gumbel noise (Kool et al. 2019, section 2.3).
    """
    keys = np.log(weights) + rng.gumbel(size=(n, len(weights)))
    return np.argsort(-keys, axis=1)[:, :k]
