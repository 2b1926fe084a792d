"""Main effects of the options, estimated with the seed noise as their error."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from formulaic.transforms.contrasts import SumContrasts
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.multitest import multipletests

from modgpt.compare.columns import COSTS, LOSS
from modgpt.compare.factors import Factor
from modgpt.compare.noise import LEVEL, Matrix, Noise


def sum_contrasts(factor: Factor) -> pd.DataFrame:
    """Sum contrasts, a row per option: their effects add up to zero, around the grand mean."""
    coding = SumContrasts().get_coding_matrix(list(factor.levels), sparse=False)
    assert isinstance(coding, pd.DataFrame)
    return coding


def main_effects(frame: pd.DataFrame, factors: list[Factor]) -> list[Matrix]:
    """The columns of the additive model: the grand mean, then those of every factor."""
    coded = [sum_contrasts(f).loc[frame[f.name]].to_numpy(dtype=float) for f in factors]
    return [np.ones((len(frame), 1)), *coded]


def fitted(loss: Matrix, design: Matrix) -> Any:
    """Least squares, also of a design without full rank, as failed jobs can leave it.

    The caller checks which parameters such a design determines.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*rank-deficient.*")
        return OLS(loss, design).fit()


def effect_table(
    frame: pd.DataFrame, factors: list[Factor], names: list[str], blocks: Matrix, noise: Noise
) -> pd.DataFrame:
    """Main effect of every option, as deviation from the grand mean and as difference to the baseline.

    Deviation: from ordinary least squares on the additive model (and seed blocks) with sum contrasts.
    The grand mean gives the options of a factor equal weights, however often they were run. Difference:
    mean over pairs of runs that agree in every other choice and in the seed; it needs no model. Holm's
    correction covers all tests of both.
    """
    columns = main_effects(frame, factors)
    design = np.hstack([*columns, blocks])
    rows, start = [], 1
    if not factors:
        return pd.DataFrame()
    fit = fitted(frame[LOSS].to_numpy(), design)
    # x'β is determined by the data only for x in the row space of the design.
    spanned = np.linalg.pinv(design) @ design
    for factor in factors:
        coding = sum_contrasts(factor)
        for option in factor.levels:
            contrast = np.zeros(design.shape[1])
            contrast[start : start + coding.shape[1]] = coding.loc[option]
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
        start += coding.shape[1]
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
    """Mean difference of an option to the baseline, over pairs of runs alike in all else.

    Each run is in at most one pair, so the variance of the mean of n pairs is 2σ²/n. The costs are the
    geometric means of the pairs' ratios.
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
    """Add p-values with Holm's correction over all tests of the named columns together."""
    names = [f"{name}_p" for name in tests]
    p = table[names].to_numpy(dtype=float)
    made = np.isfinite(p)
    adjusted = np.full_like(p, np.nan)
    if made.any():
        adjusted[made] = multipletests(p[made], method="holm")[1]
    table[[f"{name}_holm" for name in names]] = adjusted


def verdict(row: pd.Series) -> str:
    """The difference to the baseline in a word; empty where nothing was tested."""
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
