"""Does the effect of one factor depend on the option of another?"""

from __future__ import annotations

import warnings
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests

from modgpt.compare.columns import LOSS
from modgpt.statistics.critical import Matrix
from modgpt.statistics.noise import Noise
from modgpt.statistics.pairs import Factor


def interaction_table(frame: pd.DataFrame, factors: list[Factor], noise: Noise) -> pd.DataFrame:
    """A row per pair of factors: the F test of their interaction, with Holm's correction over the pairs.

    F = (SS without the pair's products − SS with them) / (their degrees of freedom · σ²), in a model
    with all main effects. The error is the seed noise.
    """
    columns = [indicators(frame, factor) for factor in factors]
    reduced = np.hstack([np.ones((len(frame), 1)), *columns])
    loss = frame[LOSS].to_numpy()
    rows = []
    for (i, a), (j, b) in combinations(enumerate(factors), 2):
        products = [columns[i][:, [k]] * columns[j] for k in range(columns[i].shape[1])]
        full = np.hstack([reduced, *products])
        df = int(np.linalg.matrix_rank(full) - np.linalg.matrix_rank(reduced))
        f = p = np.nan
        if df and noise.sigma is not None:
            explained = fitted(loss, reduced).ssr - fitted(loss, full).ssr
            f = max(0.0, explained) / df / noise.sigma**2
            p = float(stats.f.sf(f, df, noise.df))
        rows.append({"a": a.name, "b": b.name, "F": f, "df": df, "df_error": noise.df, "p": p})
    table = pd.DataFrame(rows, columns=["a", "b", "F", "df", "df_error", "p"])
    corrected = np.full(len(table), np.nan)
    tested = table["p"].notna().to_numpy(dtype=bool)
    if tested.any():
        corrected[tested] = multipletests(table.loc[tested, "p"], method="holm")[1]
    table["p_holm"] = corrected
    return table


def indicators(frame: pd.DataFrame, factor: Factor) -> Matrix:
    """A column of zeros and ones per option but the baseline."""
    levels = frame[factor.name].to_numpy()
    return np.stack([levels == option for option in factor.levels[1:]], axis=1).astype(float)


def fitted(loss: Matrix, design: Matrix) -> Any:
    """Least squares, also of a design without full rank, as failed jobs can leave it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rank-deficient.*")
        return OLS(loss, design).fit()


def pair_means(frame: pd.DataFrame, a: Factor, b: Factor) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean loss, and number of runs, of every pair of options of two factors."""
    mean, count = (
        frame.pivot_table(LOSS, a.name, b.name, how).reindex(index=a.levels, columns=b.levels)
        for how in ("mean", "count")
    )
    return mean, count.fillna(0).astype(int)
