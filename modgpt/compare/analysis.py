"""The statistics of a comparison: noise, verdicts, the best combinations, interactions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from modgpt.compare.columns import ACCURACY, COSTS, LOSS
from modgpt.compare.effects import effect_table, has_accuracy
from modgpt.compare.interactions import interaction_table, pair_means
from modgpt.compare.load import Results
from modgpt.statistics.best import may_be_best
from modgpt.statistics.budgets import Budgets, over_budgets
from modgpt.statistics.differences import Difference, differences
from modgpt.statistics.noise import Noise, seed_noise, t_interval
from modgpt.statistics.pairs import Factor
from modgpt.statistics.solved import Solved, TaskCount, solved_counts, task_counts
from modgpt.statistics.verdict import CONFIDENCE, DELTA

TASK = "data"  # the factor that names the tasks
BUDGETS = ("trainer.max_steps", "budget")  # factors that are budgets


@dataclass(frozen=True)
class Statistics:
    """The statistics of a comparison.

    Attributes:
        factors: what varies among the finished runs, with the levels that finished.
        noise: the seed noise.
        unit: of all losses.
        delta: differences below it count as the same, in this unit.
        confidence: of all intervals together. Higher than 95 % where a sweep looked several times.
        differences: of every option from its baseline, with verdicts.
        solved: for a task, the counts of solved runs; they replace the verdicts on the loss.
        tasks: where the runs are of several tasks, the counts of every option in every task. The tasks
            are then contexts of the other factors, and are not compared with each other.
        effects: a row per option: difference, interval, verdict, solved runs, cost ratios.
        cells: a row per cell: its choices, n, mean, low, high (t interval over its own seeds), sd, mean
            accuracy (of tasks) and costs, distance behind the best mean, whether it may be the best.
        interactions: a row per pair of factors: F, degrees of freedom, p, p_holm.
        maps: per pair of factors the mean loss of every combination of their options, and its runs.
        budgets: where runs were trained to several budgets, how every difference depends on them; all
            else rests on the largest budget alone.
        repeated: runs left out because the same cell and seed were run again later.
    """

    factors: list[Factor]
    noise: Noise
    unit: str
    delta: float
    confidence: float
    differences: list[Difference]
    solved: list[Solved]
    tasks: list[TaskCount]
    effects: pd.DataFrame
    cells: pd.DataFrame
    interactions: pd.DataFrame
    maps: dict[tuple[str, str], tuple[pd.DataFrame, pd.DataFrame]]
    budgets: list[Budgets]
    repeated: int


def analyse(results: Results, delta: float = DELTA, confidence: float = CONFIDENCE) -> Statistics:
    """All statistics of the finished runs; tables are empty where there is nothing to compare."""
    everything, repeated = replicates(results.finished, [factor.name for factor in results.factors])
    budget = budget_of(results)
    frame, names = compared_runs(results)
    factors = present([factor for factor in results.factors if factor.name != budget], frame)
    task = has_accuracy(frame)
    several = task and several_tasks(frame)
    designed = [f for f in factors if f.designed and not (several and f.name == TASK)]
    noise = seed_noise(frame)
    found = differences(frame, designed, names, noise, delta, confidence)
    solved = solved_counts(frame, designed, names, ACCURACY, confidence) if task else []
    return Statistics(
        factors=factors,
        noise=noise,
        unit=results.unit,
        delta=delta,
        confidence=confidence,
        differences=found,
        solved=solved,
        tasks=task_counts(frame, TASK, designed, ACCURACY) if several else [],
        effects=effect_table(frame, designed, names, found, solved),
        cells=cell_table(frame, names, noise, confidence),
        interactions=interaction_table(frame, designed, noise),
        maps={(a.name, b.name): pair_means(frame, a, b) for a, b in combinations(designed, 2)},
        budgets=over_budgets(with_costs(everything), designed, confidence) if budget else [],
        repeated=repeated,
    )


def compared_runs(results: Results) -> tuple[pd.DataFrame, list[str]]:
    """The runs on which the differences rest, with the numbers of their cells; and all their factors."""
    names = [factor.name for factor in results.factors]
    budget = budget_of(results)
    frame = at_largest(replicates(results.finished, names)[0], budget)
    return frame, [name for name in names if name != budget]


def replicates(finished: pd.DataFrame, names: list[str]) -> tuple[pd.DataFrame, int]:
    """The runs with the number of their cell, and how many were left out.

    The same cell and seed again is the same training again, not a replicate: the latest counts.
    """
    rows = finished.sort_values("started_at", kind="stable", na_position="first")
    again = rows.duplicated([*names, "seed"], keep="last") & rows["seed"].notna()
    frame = rows[~again].sort_index().reset_index(drop=True)
    frame["cell"] = frame.groupby(names, dropna=False).ngroup() if names else 0
    return frame, int(again.sum())


def several_tasks(frame: pd.DataFrame) -> bool:
    """Whether the runs are of several tasks, which differ in more than their difficulty."""
    return TASK in frame and frame[TASK].nunique() > 1


def budget_of(results: Results) -> str | None:
    """The factor that is the budget; None where all runs have the same."""
    return next((factor.name for factor in results.factors if factor.name in BUDGETS), None)


def at_largest(frame: pd.DataFrame, budget: str | None) -> pd.DataFrame:
    """The runs with the largest budget; all where the budgets do not vary."""
    if budget is None or frame.empty:
        return frame
    return frame[frame["tokens_seen"] == frame["tokens_seen"].max()].reset_index(drop=True)


def with_costs(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs with the compute and the time of their whole training."""
    flops = 3 * frame["flops_per_token"] * frame["tokens_seen"]
    return frame.assign(flops=flops, seconds=frame["tokens_seen"] / frame["tokens_per_second"])


def present(factors: list[Factor], frame: pd.DataFrame) -> list[Factor]:
    """The factors with at least two levels among the rows, with only these levels."""
    found = []
    for factor in factors:
        levels = tuple(level for level in factor.levels if (frame[factor.name] == level).any())
        if len(levels) > 1:
            found.append(Factor(factor.name, levels, factor.designed))
    return found


def cell_table(frame: pd.DataFrame, names: list[str], noise: Noise, confidence: float) -> pd.DataFrame:
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
        columns = ["cell", *names, "n", "mean", "low", "high", "sd", ACCURACY, *COSTS]
        return pd.DataFrame(columns=[*columns, "behind", "may_be_best"])
    table = pd.DataFrame(rows).sort_values("mean", ignore_index=True)
    table["behind"] = table["mean"] - table["mean"].iloc[0]
    means, runs = table["mean"].to_numpy(dtype=float), table["n"].to_numpy(dtype=float)
    table["may_be_best"] = may_be_best(means, runs, noise, confidence)
    return table
