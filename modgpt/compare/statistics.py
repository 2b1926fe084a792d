"""What the final losses say: means, main effects, interactions, each held against the seed noise.

All models are ordinary least squares (statsmodels), all distributions scipy's. The error is never the
misfit of a model but the scatter of replicates: runs of the same cell (the same choices) that differ in
their seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from statsmodels.regression.linear_model import OLS

from modgpt.compare.effects import (
    COSTS,
    Matrix,
    Noise,
    effect_table,
    heat_map,
    indicators,
    interaction_table,
    main_effects,
    rank,
    t_interval,
)
from modgpt.compare.load import ACCURACY, LOSS, Factor, Results


@dataclass(frozen=True)
class Statistics:
    """All that `analyse` finds.

    Attributes:
        factors: what varies among the runs that count, with the levels that finished.
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
    # The same cell and seed again is the same training again, and no replicate.
    seeded = rows["seed"].notna()
    again = rows.duplicated([*names, "seed"], keep="last") & seeded
    frame = rows[~again].sort_index().reset_index(drop=True)
    frame["cell"] = frame.groupby(names, dropna=False).ngroup() if names else 0
    factors = present(results.factors, frame)
    designed = [factor for factor in factors if factor.designed]
    blocks, blocked = seed_blocks(frame, designed)
    noise = seed_noise(frame, blocked)
    return Statistics(
        factors=factors,
        noise=noise,
        cells=cell_table(frame, names, noise),
        effects=effect_table(frame, designed, names, blocks, noise),
        interactions=interaction_table(frame, designed, blocks, noise),
        maps={(a.name, b.name): heat_map(frame, a, b) for a, b in combinations(designed, 2)},
        repeated=int(again.sum()),
    )


def present(factors: list[Factor], frame: pd.DataFrame) -> list[Factor]:
    """The factors with at least two levels among the rows, reduced to these levels."""
    found = []
    for factor in factors:
        levels = tuple(level for level in factor.levels if (frame[factor.name] == level).any())
        if len(levels) > 1:
            found.append(Factor(factor.name, levels, factor.designed))
    return found


def seed_blocks(frame: pd.DataFrame, factors: list[Factor]) -> tuple[Matrix, bool]:
    """The columns that take a seed's common shift out, and whether the design allows for them.

    It does when choices and seeds are crossed: seeds of their own for every choice would take the
    effects out with the shift.
    """
    nothing = np.zeros((len(frame), 0))
    if frame["seed"].isna().any() or frame["seed"].nunique() < 2:
        return nothing, False
    blocks = indicators(frame["seed"])
    design = main_effects(frame, factors)
    crossed = rank(*design, blocks) == rank(*design) + blocks.shape[1]
    left = len(frame) - frame["cell"].nunique() - rank(centred(frame, blocks))
    return (blocks, True) if crossed and left > 0 else (nothing, False)


def centred(frame: pd.DataFrame, columns: Matrix) -> Matrix:
    """Columns less their means within cells: what a term for every cell leaves of them."""
    table = pd.DataFrame(columns)
    return (table - table.groupby(frame["cell"].to_numpy()).transform("mean")).to_numpy()


def seed_noise(frame: pd.DataFrame, blocked: bool) -> Noise:
    """σ² = residual sum of squares of loss ~ cell (+ seed) over its degrees of freedom."""
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
    if sigma <= 1e-12 * float(frame[LOSS].abs().max()):  # replicates without any scatter tell nothing
        return Noise(None, 0, False, within, replicated, seeds)
    return Noise(sigma, df, blocked, within, replicated, seeds)


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
    table.loc[0, "tie"] = False  # the best does not tie with itself
    return table
