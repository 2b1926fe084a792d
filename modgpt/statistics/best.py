"""Which combinations may be the best."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modgpt.statistics.critical import tukey_t
from modgpt.statistics.noise import Noise
from modgpt.statistics.pairs import Vector
from modgpt.statistics.verdict import CONFIDENCE


def may_be_best(
    means: Vector, runs: Vector, noise: Noise, confidence: float = CONFIDENCE
) -> NDArray[np.bool_]:
    """Whether each cell's true mean may be the lowest of all; True everywhere without a noise estimate.

    A cell is out when it is behind the cell with the lowest mean by more than Tukey's honestly
    significant difference (Tukey 1949; Kramer 1956 for unequal numbers). The truly best cell stays in
    with the given confidence, however many cells there are: the choice of the winner is accounted for.

    Args:
        means: mean loss of every cell.
        runs: number of runs of every cell.
        noise: of a run.
        confidence: that the best cell is among those that stay.
    """
    if noise.sigma is None or len(means) < 2:
        return np.ones(len(means), dtype=bool)
    best = int(np.argmin(means))
    q = tukey_t(len(means), noise.df, confidence)
    return means - means[best] <= q * noise.sigma * np.sqrt(1 / runs + 1 / runs[best])
