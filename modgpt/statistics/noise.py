"""The seed noise: how much the final loss of a run scatters from seed to seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

LOSS = "final_val_loss"
CELL = "cell"  # runs with the same cell differ only in their seed
DIFFERENT = 0.01  # p-value of Bartlett's test below which the spreads count as different


@dataclass(frozen=True)
class Noise:
    """The scatter of a run's loss from seed to seed, pooled over the cells with several seeds.

    Attributes:
        sigma: its standard deviation; None when no cell was run with two seeds.
        df: its degrees of freedom.
        paired: every cell has the same seeds, and `sigma` leaves out the shift that a seed gives to all
            runs alike. Differences are taken within seeds, where this shift cancels.
        correlation: of two cells' losses with the same seed, as the shift causes it; None unless paired.
        within: the standard deviation within cells, including that shift.
        replicated: number of cells with at least two seeds.
        seeds: seeds per cell, as most cells have them.
        unequal: the cells' spreads differ (Bartlett's test): the pooled value fits none of them.
    """

    sigma: float | None
    df: int
    paired: bool
    correlation: float | None
    within: float | None
    replicated: int
    seeds: int
    unequal: bool

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of σ, by the χ² distribution of its square."""
        if self.sigma is None:
            return np.nan, np.nan
        low, high = stats.chi2.ppf([0.025, 0.975], self.df)
        return self.sigma * np.sqrt(self.df / high), self.sigma * np.sqrt(self.df / low)


def seed_noise(frame: pd.DataFrame) -> Noise:
    """σ² = residual sum of squares of loss ~ cell (+ seed, where paired) / its degrees of freedom.

    Args:
        frame: a row per run, with `cell`, `seed` and the final loss.
    """
    by_cell = dict[int, list[float]]()
    for cell, loss in zip(frame[CELL].tolist(), frame[LOSS].tolist(), strict=True):
        by_cell.setdefault(cell, []).append(loss)
    groups = [np.array(losses) for losses in by_cell.values()]
    seeds = Counter(map(len, groups)).most_common(1)[0][0] if groups else 1
    several = [group for group in groups if len(group) > 1]
    residuals = np.concatenate([group - group.mean() for group in several]) if several else np.zeros(0)
    df = len(residuals) - len(several)
    within = float(np.sqrt(residuals @ residuals / df)) if df else None
    none = Noise(None, 0, False, None, within, len(several), seeds, False)
    # Replicates with equal losses do not measure the noise.
    if within is None or frame["seed"].isna().any() or within <= 1e-12 * frame[LOSS].abs().max():
        return none
    sigma, correlation = within, None
    table = paired_losses(frame)
    if table is not None:
        k, n = table.shape
        shift = table.mean(axis=0) - table.mean()
        rest = table - table.mean(axis=1, keepdims=True) - shift
        df = (k - 1) * (n - 1)
        sigma = float(np.sqrt((rest**2).sum() / df))
        correlation = 1 - sigma**2 / within**2
    return Noise(
        sigma, df, table is not None, correlation, within, len(several), seeds, spreads(several)
    )


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of two values or more, from their own scatter."""
    mean, error = float(np.mean(values)), float(stats.sem(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return mean - half, mean + half


def paired_losses(frame: pd.DataFrame) -> np.ndarray | None:
    """The losses, a row per cell and a column per seed; None unless every cell has the same seeds."""
    by_cell = dict[int, dict[object, float]]()
    columns = (frame[name].tolist() for name in (CELL, "seed", LOSS))
    for cell, seed, loss in zip(*columns, strict=True):
        by_cell.setdefault(cell, {})[seed] = loss
    seeds = set(frame["seed"].tolist())
    complete = all(losses.keys() == seeds for losses in by_cell.values())
    if not complete or len(by_cell) < 2 or len(seeds) < 2:
        return None
    return np.array([[losses[seed] for seed in seeds] for losses in by_cell.values()])


def spreads(several: list[np.ndarray]) -> bool:
    """Whether the cells' spreads differ, by Bartlett's test; cells without any scatter are left out."""
    scattered = [group for group in several if np.ptp(group) > 0]
    return len(scattered) > 1 and bool(stats.bartlett(*scattered).pvalue < DIFFERENT)
