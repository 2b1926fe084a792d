"""Small designs with given losses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from modgpt.statistics.differences import Difference, differences
from modgpt.statistics.noise import CELL, LOSS, seed_noise
from modgpt.statistics.pairs import Factor


def frame_of(rows: Sequence[tuple[dict[str, str], int, float]]) -> pd.DataFrame:
    """Rows of (choices, seed, loss) as the table that the statistics read."""
    frame = pd.DataFrame([choices | {"seed": seed, LOSS: loss} for choices, seed, loss in rows])
    names = [name for name in frame.columns if name not in ("seed", LOSS)]
    frame[CELL] = frame.groupby(names, sort=False).ngroup()
    return frame


def one_factor(samples: Sequence[Sequence[float]]) -> tuple[pd.DataFrame, list[Factor]]:
    """The losses of a baseline and of its options, seeds 1, 2, 3, …"""
    rows = [
        ({"part": str(option)}, seed, loss)
        for option, losses in enumerate(samples)
        for seed, loss in enumerate(losses, start=1)
    ]
    return frame_of(rows), [Factor("part", tuple(str(i) for i in range(len(samples))))]


def crossed(
    levels: dict[str, int], loss: dict[tuple[int, ...], float], noise: float = 0.0, seeds: int = 1
) -> tuple[pd.DataFrame, list[Factor]]:
    """A grid; `loss` has the mean of every cell that is not 1.8."""
    rng = np.random.default_rng(0)
    rows = []
    for cell in product(*(range(n) for n in levels.values())):
        for seed in range(seeds):
            choices = {name: str(level) for name, level in zip(levels, cell, strict=True)}
            rows.append((choices, seed, 1.8 + loss.get(cell, 0.0) + rng.normal(0, noise)))
    factors = [Factor(name, tuple(map(str, range(n)))) for name, n in levels.items()]
    return frame_of(rows), factors


def judged(frame: pd.DataFrame, factors: list[Factor], delta: float = 0.02) -> dict[str, Difference]:
    """The differences by `factor=option`."""
    names = [factor.name for factor in factors]
    found = differences(frame, factors, names, seed_noise(frame), delta)
    return {f"{d.factor}={d.option}": d for d in found}
