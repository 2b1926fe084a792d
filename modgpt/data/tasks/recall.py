"""Multi-query associative recall: find the value of a key."""

from __future__ import annotations

from typing import Any

import numpy as np

from modgpt.data.tasks.base import TaskDataModule, Tokens, at_least


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

    markers = "."
    settings = ("pairs", "power")

    def __init__(self, *, vocabulary: int, pairs: int | None, power: float, **base: Any) -> None:
        super().__init__(vocabulary=vocabulary, **base)
        if pairs is None:
            pairs = self.block_size // 4
        at_least(1, pairs=pairs)
        if vocabulary % 2 or vocabulary < 2 * pairs:
            raise ValueError(
                f"data.vocabulary={vocabulary} must be even and at least {2 * pairs}, for data.pairs="
                f"{pairs} different keys and as many values"
            )
        self.needs_length(4 * pairs, pairs=pairs)
        if power <= 0:
            raise ValueError(f"data.power must be positive, got {power}")
        self.pairs, self.power = pairs, power

    def draw(self, rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
        inputs, targets = self.blank(n)
        half, listed = self.vocabulary // 2, 2 * self.pairs
        keys = 1 + without_replacement(rng, np.ones(half), n, self.pairs)  # (n,P)
        values = 1 + half + without_replacement(rng, np.ones(half), n, self.pairs)
        gaps = np.arange(1, (self.block_size - listed) // 2 + 1)
        places = listed + 2 * without_replacement(rng, gaps ** (self.power - 1), n, self.pairs)
        inputs[:, 0:listed:2], inputs[:, 1:listed:2] = keys, values
        np.put_along_axis(inputs, places, keys, axis=1)
        np.put_along_axis(targets, places, values, axis=1)
        return inputs, targets

    def solve(self, read: list[int]) -> dict[int, int]:
        listed = 2 * self.pairs
        value_of = dict(zip(read[0:listed:2], read[1:listed:2], strict=True))
        return {t: value_of[token] for t, token in enumerate(read) if t >= listed and token}

    @property
    def chance(self) -> float:
        """2/V: half of the letters are values."""
        return 2 / self.vocabulary


def without_replacement(rng: np.random.Generator, weights: np.ndarray, n: int, k: int) -> np.ndarray:
    """n draws of k different indices of `weights` (M,): (n,k).

    The distribution is that of sequential draws with probabilities proportional to the remaining
    weights. It is computed as the k largest of log w + Gumbel noise (Kool et al. 2019, section 2.3).
    """
    keys = np.log(weights) + rng.gumbel(size=(n, len(weights)))
    return np.argsort(-keys, axis=1)[:, :k]
