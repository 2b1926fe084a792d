"""Statistics of the final losses: means, main effects and interactions, compared with the seed noise.

All models are ordinary least squares (statsmodels); all distributions come from scipy. The error is
always the scatter of replicates, never the misfit of a model. Replicates are runs of one cell (the same
choices) that differ only in their seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from modgpt.compare.columns import ACCURACY, COSTS, LOSS
from modgpt.compare.effects import effect_table, main_effects
from modgpt.compare.factors import Factor
from modgpt.compare.interactions import interaction_table, pair_means
from modgpt.compare.load import Results
from modgpt.compare.noise import Noise, seed_blocks, seed_noise, t_interval


@dataclass(frozen=True)
class Statistics:
    """The statistics of a comparison.

    Attributes:
        factors: what varies among the finished runs, with the levels that finished.
        noise: the seed noise.
        cells: a row per cell: its choices, n, mean, low, high (t interval over its own seeds), sd,
            mean accuracy (of tasks) and costs, distance behind the best mean, tie with the best.
        effects: a row per option: factor, option, deviation from the grand mean and difference to the
            baseline, each with low, high, p and p_holm, and the difference in costs (ratios).
        interactions: a row per pair of groups: F, degrees of freedom, p, p_holm.
        maps: per pair of groups the mean loss of every combination of their options, and its runs.
        repeated: runs left out because the same cell and seed were run again later.
    """

    factors: list[Factor]
    noise: Noise
    cells: pd.DataFrame
    effects: pd.DataFrame
    interactions: pd.DataFrame
    maps: dict[tuple[str, str], tuple[pd.DataFrame, pd.DataFrame]]
    repeated: int


def analyse(results: Results) -> Statistics:
    """All statistics of the finished runs; tables are empty where there is nothing to compare."""
    names = [factor.name for factor in results.factors]
    rows = results.finished.sort_values("started_at", kind="stable", na_position="first")
    # The same cell and seed again is the same training again, not a replicate.
    seeded = rows["seed"].notna()
    again = rows.duplicated([*names, "seed"], keep="last") & seeded
    frame = rows[~again].sort_index().reset_index(drop=True)
    frame["cell"] = frame.groupby(names, dropna=False).ngroup() if names else 0
    factors = present(results.factors, frame)
    designed = [factor for factor in factors if factor.designed]
    blocks, blocked = seed_blocks(frame, main_effects(frame, designed))
    noise = seed_noise(frame, blocked)
    return Statistics(
        factors=factors,
        noise=noise,
        cells=cell_table(frame, names, noise),
        effects=effect_table(frame, designed, names, blocks, noise),
        interactions=interaction_table(frame, designed, blocks, noise),
        maps={(a.name, b.name): pair_means(frame, a, b) for a, b in combinations(designed, 2)},
        repeated=int(again.sum()),
    )


def present(factors: list[Factor], frame: pd.DataFrame) -> list[Factor]:
    """The factors with at least two levels among the rows, with only these levels."""
    found = []
    for factor in factors:
        levels = tuple(level for level in factor.levels if (frame[factor.name] == level).any())
        if len(levels) > 1:
            found.append(Factor(factor.name, levels, factor.designed))
    return found


def cell_table(frame: pd.DataFrame, names: list[str], noise: Noise) -> pd.DataFrame:
    """Mean and t interval of every cell over its own seeds, the best first."""
    rows = []
    for _, cell in frame.groupby("cell"):
        loss, n = cell[LOSS], len(cell)
        mean, low, high = float(loss.mean()), np.nan, np.nan
        if n > 1 and noise.sigma is not None:
            low, high = t_interval(loss.tolist())
        others = {column: cell[column].mean() for column in (ACCURACY, *COSTS)}
        choices = {name: cell[name].iloc[0] for name in names}
        spread = {"n": n, "mean": mean, "low": low, "high": high, "sd": float(loss.std())}
        rows.append({"cell": int(cell["cell"].iloc[0])} | choices | spread | others)
    if not rows:
        columns = ["cell", *names, "n", "mean", "low", "high", "sd", ACCURACY, *COSTS, "behind", "tie"]
        return pd.DataFrame(columns=columns)
    table = pd.DataFrame(rows).sort_values("mean", ignore_index=True)
    table["behind"] = table["mean"] - table["mean"].iloc[0]
    floors = [noise.half_width(1 / n + 1 / table["n"].iloc[0]) for n in table["n"]]
    table["tie"] = table["behind"] < floors
    table.loc[0, "tie"] = False  # the best is not compared with itself
    return table
