"""Main effects and interactions of the choices, as estimates with the seed noise as their error."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests

from modgpt.compare.load import LOSS, Factor

LEVEL = 0.95
COSTS = ("active_parameters", "flops_per_token", "tokens_per_second", "peak_memory_bytes")
Matrix = NDArray[np.float64]


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of two values or more, from their own scatter."""
    low, high = stats.t.interval(LEVEL, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    return float(low), float(high)


@dataclass(frozen=True)
class Noise:
    """The scatter of a run's loss from seed to seed, pooled over the replicated cells.

    Attributes:
        sigma: its standard deviation; None when no cell was run with two seeds.
        df: its degrees of freedom.
        blocked: a shift that a seed gives to all runs alike has been taken out of `sigma`: comparisons
            are made within seeds, where it cancels.
        within: the standard deviation within cells with that shift left in.
        replicated: cells with at least two seeds.
        seeds: seeds per cell, as most cells have them.
    """

    sigma: float | None
    df: int
    blocked: bool
    within: float | None
    replicated: int
    seeds: int

    def half_width(self, variance: float) -> float:
        """t·σ·√variance: of the 95 % interval of an estimate with that variance at σ = 1."""
        if self.sigma is None:
            return np.nan
        return float(stats.t.ppf((1 + LEVEL) / 2, self.df) * self.sigma * np.sqrt(variance))

    def p_value(self, estimate: float, variance: float) -> float:
        """Two-sided, of the hypothesis that the true value is zero."""
        if self.sigma is None:
            return np.nan
        return float(2 * stats.t.sf(abs(estimate) / (self.sigma * np.sqrt(variance)), self.df))

    @property
    def floor(self) -> float:
        """The least difference between two cells' means that is none of the noise."""
        return self.half_width(2 / self.seeds)


def sum_coded(column: pd.Series, levels: tuple[str, ...]) -> Matrix:
    """Sum contrasts: a column per level but the last, which is −1 in all of them."""
    indicators = np.stack([column == level for level in levels], axis=1).astype(float)
    return indicators[:, :-1] - indicators[:, -1:]


def indicators(column: pd.Series) -> Matrix:
    """A column per value but the first."""
    return pd.get_dummies(column, drop_first=True, dtype=float).to_numpy()


def rank(*columns: Matrix) -> int:
    return int(np.linalg.matrix_rank(np.hstack(columns)))


def main_effects(frame: pd.DataFrame, factors: list[Factor]) -> list[Matrix]:
    """The columns of the additive model: the grand mean, then those of every factor."""
    return [np.ones((len(frame), 1)), *(sum_coded(frame[f.name], f.levels) for f in factors)]


def fitted(loss: Matrix, design: Matrix) -> Any:
    """Least squares, also where failed jobs have left a design without full rank.

    What such a design does not determine is checked by whoever uses the parameters.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rank-deficient.*")
        return OLS(loss, design).fit()


def effect_table(
    frame: pd.DataFrame, factors: list[Factor], names: list[str], blocks: Matrix, noise: Noise
) -> pd.DataFrame:
    """Main effect of every option, as deviation from the grand mean and as difference to the baseline.

    Deviation: sum-coded OLS of the additive model (and seed blocks); the grand mean weighs the options
    of a factor alike, however often they were run. Difference: mean over pairs of runs that agree in
    every other choice and in the seed, so that it needs no model. Holm's correction is over all tests
    of both.
    """
    columns = main_effects(frame, factors)
    design = np.hstack([*columns, blocks])
    rows, start = [], 1
    if not factors:
        return pd.DataFrame()
    fit = fitted(frame[LOSS].to_numpy(), design)
    # x'β is determined by the data only for x in the row space of the design.
    spanned = np.linalg.pinv(design) @ design
    for factor, coded in zip(factors, columns[1:], strict=True):
        for i, option in enumerate(factor.levels):
            contrast = np.zeros(design.shape[1])
            contrast[start : start + coded.shape[1]] = np.eye(len(factor.levels))[i, :-1]
            if i == len(factor.levels) - 1:
                contrast[start : start + coded.shape[1]] = -1
            deviation, variance = np.nan, np.nan
            if np.allclose(contrast @ spanned, contrast, atol=1e-8):
                deviation = float(contrast @ fit.params)
                variance = float(fit.cov_params(r_matrix=contrast, scale=1.0))
            runs = int((frame[factor.name] == option).sum())
            rows.append(
                {"factor": factor.name, "option": option, "baseline": option == factor.baseline}
                | {"runs": runs}
                | tested("deviation", deviation, variance, noise)
                | paired(frame, factor, option, [n for n in names if n != factor.name], noise)
            )
        start += coded.shape[1]
    table = pd.DataFrame(rows)
    holm(table, ["deviation", "difference"])
    table["verdict"] = [verdict(row) for _, row in table.iterrows()]
    return table


def tested(name: str, estimate: float, variance: float, noise: Noise) -> dict[str, float]:
    """An estimate with its interval and p-value, from the seed noise."""
    half = noise.half_width(variance)
    return {
        name: estimate,
        f"{name}_low": estimate - half,
        f"{name}_high": estimate + half,
        f"{name}_p": noise.p_value(estimate, variance),
    }


def paired(
    frame: pd.DataFrame, factor: Factor, option: str, others: list[str], noise: Noise
) -> dict[str, float]:
    """Mean difference of an option to the baseline, over runs that are alike in everything else.

    Each run is in at most one pair, so that n pairs have the variance 2σ²/n. The costs are geometric
    means of the pairs' ratios.
    """
    sides = [frame[frame[factor.name] == level] for level in (option, factor.baseline)]
    pairs = sides[0].merge(sides[1], on=[*others, "seed"], suffixes=("", "_base"))
    n = 0 if option == factor.baseline else len(pairs)
    difference = float((pairs[LOSS] - pairs[f"{LOSS}_base"]).mean()) if n else np.nan
    found = tested("difference", difference, 2 / n if n else np.nan, noise) | {"pairs": n}
    for cost in COSTS:
        ratio = np.log(pairs[cost] / pairs[f"{cost}_base"]).mean() if n else np.nan
        found[f"{cost}_ratio"] = float(np.exp(ratio))
    return found


def holm(table: pd.DataFrame, tests: list[str]) -> None:
    """Add Holm's adjusted p-values, over all tests of the named columns together."""
    names = [f"{name}_p" for name in tests]
    p = table[names].to_numpy(dtype=float)
    made = np.isfinite(p)
    adjusted = np.full_like(p, np.nan)
    if made.any():
        adjusted[made] = multipletests(p[made], method="holm")[1]
    table[[f"{name}_holm" for name in names]] = adjusted


def verdict(row: pd.Series) -> str:
    """In a word, what the difference to the baseline amounts to; empty where nothing was tested."""
    if row["baseline"]:
        return "baseline"
    if not row["pairs"]:
        return "no pair"
    if not np.isfinite(row["difference_p"]):
        return ""
    if row["difference_low"] <= 0 <= row["difference_high"]:
        return "tie"
    if row["difference_p_holm"] >= 1 - LEVEL:
        return "unclear"
    return "worse" if row["difference"] > 0 else "better"


def interaction_table(
    frame: pd.DataFrame, factors: list[Factor], blocks: Matrix, noise: Noise
) -> pd.DataFrame:
    """Two-way interactions: does the effect of one factor depend on the option of another?

    F = (SS without the pair's products − SS with them) / (their degrees of freedom · σ²), beside all
    main effects and seed blocks, with the seed noise as its error.
    """
    columns = main_effects(frame, factors)
    reduced = np.hstack([*columns, blocks])
    loss = frame[LOSS].to_numpy()
    rows = []
    for (i, a), (j, b) in combinations(enumerate(factors, start=1), 2):
        products = [columns[i][:, [k]] * columns[j] for k in range(columns[i].shape[1])]
        full = np.hstack([reduced, *products])
        df = rank(full) - rank(reduced)
        f = p = np.nan
        if df and noise.sigma is not None:
            explained = fitted(loss, reduced).ssr - fitted(loss, full).ssr
            f = max(0.0, explained) / df / noise.sigma**2
            p = float(stats.f.sf(f, df, noise.df))
        rows.append({"a": a.name, "b": b.name, "F": f, "df": df, "df_error": noise.df, "p": p})
    table = pd.DataFrame(rows, columns=["a", "b", "F", "df", "df_error", "p"])
    holm_p = np.full(len(table), np.nan)
    made = table["p"].notna().to_numpy(dtype=bool)
    if made.any():
        holm_p[made] = multipletests(table.loc[made, "p"], method="holm")[1]
    table["p_holm"] = holm_p
    return table


def heat_map(frame: pd.DataFrame, a: Factor, b: Factor) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean loss and number of runs of every combination of the options of two factors."""
    mean, count = (
        frame.pivot_table(LOSS, a.name, b.name, how).reindex(index=a.levels, columns=b.levels)
        for how in ("mean", "count")
    )
    return mean, count.fillna(0).astype(int)
