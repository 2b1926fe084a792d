"""The seed noise: how much the final loss of a run scatters from seed to seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.regression.linear_model import OLS

from modgpt.compare.columns import LOSS

LEVEL = 0.95
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Noise:
    """The scatter of a run's loss from seed to seed, pooled over the cells with several seeds.

    Attributes:
        sigma: its standard deviation; None when no cell was run with two seeds.
        df: its degrees of freedom.
        blocked: `sigma` leaves out the shift that a seed gives to all runs alike. Comparisons are made
            within seeds, where this shift cancels.
        within: the standard deviation within cells, including that shift.
        replicated: number of cells with at least two seeds.
        seeds: seeds per cell, as most cells have them.
    """

    sigma: float | None
    df: int
    blocked: bool
    within: float | None
    replicated: int
    seeds: int

    def half_width(self, variance: float) -> float:
        """t·σ·√variance: half of the 95 % interval of an estimate that has this variance at σ = 1."""
        if self.sigma is None:
            return np.nan
        return float(stats.t.ppf((1 + LEVEL) / 2, self.df) * self.sigma * np.sqrt(variance))

    def p_value(self, estimate: float, variance: float) -> float:
        """The two-sided p-value of the hypothesis that the true value is zero."""
        if self.sigma is None:
            return np.nan
        return float(2 * stats.t.sf(abs(estimate) / (self.sigma * np.sqrt(variance)), self.df))

    @property
    def floor(self) -> float:
        """The smallest difference of two cells' means that is distinguishable from seed noise."""
        return self.half_width(2 / self.seeds)


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of two values or more, from their own scatter."""
    low, high = stats.t.interval(LEVEL, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    return float(low), float(high)


def indicators(column: pd.Series) -> Matrix:
    """A column of zeros and ones per value but the first."""
    return pd.get_dummies(column, drop_first=True, dtype=float).to_numpy()


def rank(*columns: Matrix) -> int:
    """The rank of some columns side by side."""
    return int(np.linalg.matrix_rank(np.hstack(columns)))


def centred(frame: pd.DataFrame, columns: Matrix) -> Matrix:
    """Columns minus their means within cells: what remains of them beside a term for every cell."""
    table = pd.DataFrame(columns)
    return (table - table.groupby(frame["cell"].to_numpy()).transform("mean")).to_numpy()


def seed_blocks(frame: pd.DataFrame, design: Sequence[Matrix]) -> tuple[Matrix, bool]:
    """The columns that take out the common shift of each seed, and whether the design allows for them.

    The design allows for them when choices and seeds are crossed. If every choice had seeds of its own,
    the blocks would take out the effects too.
    """
    nothing = np.zeros((len(frame), 0))
    if frame["seed"].isna().any() or frame["seed"].nunique() < 2:
        return nothing, False
    blocks = indicators(frame["seed"])
    crossed = rank(*design, blocks) == rank(*design) + blocks.shape[1]
    left = len(frame) - frame["cell"].nunique() - rank(centred(frame, blocks))
    return (blocks, True) if crossed and left > 0 else (nothing, False)


def seed_noise(frame: pd.DataFrame, blocked: bool) -> Noise:
    """σ² = residual sum of squares of loss ~ cell (+ seed), divided by its degrees of freedom."""
    sizes = frame.groupby("cell").size()
    seeds = int(sizes.mode().min()) if len(sizes) else 1
    replicated = int((sizes > 1).sum())
    if frame["seed"].isna().any() or not replicated:
        return Noise(None, 0, False, None, replicated, seeds)
    loss = centred(frame, frame[[LOSS]].to_numpy())[:, 0]
    df = len(frame) - len(sizes)
    within = float(np.sqrt(loss @ loss / df))
    sigma = within
    if blocked:
        blocks = centred(frame, indicators(frame["seed"]))
        df -= rank(blocks)
        sigma = float(np.sqrt(OLS(loss, blocks).fit().ssr / df))
    if sigma <= 1e-12 * float(frame[LOSS].abs().max()):  # identical replicates do not measure the noise
        return Noise(None, 0, False, within, replicated, seeds)
    return Noise(sigma, df, blocked, within, replicated, seeds)
