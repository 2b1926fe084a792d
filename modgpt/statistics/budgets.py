"""How a difference depends on the budget, and what it is at equal compute and equal time.

All numbers come from runs whose schedule ends at their budget, as `sweep=budget` trains them: a point in
the middle of a longer schedule still has a high learning rate, and another loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from modgpt.statistics.critical import sidak
from modgpt.statistics.noise import LOSS
from modgpt.statistics.pairs import Factor, Vector
from modgpt.statistics.verdict import CONFIDENCE

TOKENS, FLOPS, SECONDS = "tokens_seen", "flops", "seconds"


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; NaN ends with a single seed."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Budgets:
    """One option against its baseline over budgets.

    Attributes:
        tokens: the budgets, rising.
        gaps: the difference in loss at each of them.
        at_equal_flops, at_equal_time: the difference in loss at the largest compute, or training time,
            that both were trained with; None where their ranges do not overlap.
        speed_up: compute of the baseline at its largest budget, divided by the compute with which the
            option has the same loss; above 1 the option is more efficient. None where the option does
            not pass through that loss.
    """

    factor: str
    option: str
    baseline: str
    tokens: tuple[float, ...]
    gaps: tuple[Estimate, ...]
    at_equal_flops: Estimate | None
    at_equal_time: Estimate | None
    speed_up: Estimate | None


def over_budgets(
    frame: pd.DataFrame, factors: Sequence[Factor], confidence: float = CONFIDENCE
) -> list[Budgets]:
    """Every option that was trained to several budgets with the same seeds as its baseline.

    Curves are loss against the logarithm of compute or time, straight between the budgets. Each seed
    gives a curve and a number; the intervals are t intervals over the seeds, and those of all gaps hold
    together.

    Args:
        frame: a row per run: the factors, `seed`, the final loss; `tokens_seen`, `flops` and `seconds`
            of the whole training.
        factors: whose options are compared, the budget left out.
        confidence: of all gaps together.
    """
    found = []
    names = [factor.name for factor in factors]
    for factor in factors:
        others = [name for name in names if name != factor.name]
        at_baselines = [(frame[f.name] == f.baseline) for f in factors if f.name in others]
        context = np.logical_and.reduce(at_baselines) if at_baselines else np.ones(len(frame), bool)
        sides = {level: frame[context & (frame[factor.name] == level)] for level in factor.levels}
        for option in factor.levels[1:]:
            one = against(factor, option, sides[option], sides[factor.baseline], confidence)
            if one is not None:
                found.append(one)
    return found


def against(
    factor: Factor, option: str, own: pd.DataFrame, base: pd.DataFrame, confidence: float
) -> Budgets | None:
    """One option; None where it shares fewer than two budgets with its baseline."""
    tokens = sorted(set(own[TOKENS]) & set(base[TOKENS]))
    curves = [(Curve(own, seed), Curve(base, seed)) for seed in shared_seeds(own, base, tokens)]
    if len(tokens) < 2 or not curves:
        return None
    each = sidak(confidence, len(tokens) * (len(factor.levels) - 1))
    gaps = [estimate([a.at(TOKENS, t) - b.at(TOKENS, t) for a, b in curves], each) for t in tokens]
    return Budgets(
        *(factor.name, option, factor.baseline, tuple(tokens), tuple(gaps)),
        at_equal_flops=at_equal(FLOPS, curves),
        at_equal_time=at_equal(SECONDS, curves),
        speed_up=speed_up(curves),
    )


def shared_seeds(own: pd.DataFrame, base: pd.DataFrame, tokens: Sequence[float]) -> list[object]:
    """The seeds with which both sides were trained to every budget."""

    def complete(side: pd.DataFrame) -> list[object]:
        return [seed for seed, runs in side.groupby("seed") if set(tokens) <= set(runs[TOKENS])]

    return [seed for seed in complete(own) if seed in complete(base)]


class Curve:
    """The final losses of one seed against what the runs cost."""

    def __init__(self, runs: pd.DataFrame, seed: object) -> None:
        rows = runs[runs["seed"] == seed].sort_values(TOKENS)
        self.costs = {name: np.log(rows[name].to_numpy(float)) for name in (TOKENS, FLOPS, SECONDS)}
        self.loss: Vector = rows[LOSS].to_numpy(float)

    def at(self, cost: str, value: float) -> float:
        """The loss at a cost; NaN outside the budgets."""
        x = self.costs[cost]
        return float(np.interp(np.log(value), x, self.loss, np.nan, np.nan))

    def largest(self, cost: str) -> float:
        return float(np.exp(self.costs[cost].max()))

    def needed(self, cost: str, loss: float) -> float:
        """The cost at which the curve first has a loss; NaN where it does not pass through it."""
        x, y = self.costs[cost], self.loss
        for i in range(len(y) - 1):
            if y[i] >= loss >= y[i + 1] and y[i] > y[i + 1]:
                return float(np.exp(x[i] + (y[i] - loss) / (y[i] - y[i + 1]) * (x[i + 1] - x[i])))
        return np.nan


def at_equal(cost: str, curves: Sequence[tuple[Curve, Curve]]) -> Estimate | None:
    """The difference in loss at the largest cost that both sides reach, for every seed."""
    values = []
    for own, base in curves:
        most = min(own.largest(cost), base.largest(cost))
        values.append(own.at(cost, most * (1 - 1e-12)) - base.at(cost, most * (1 - 1e-12)))
    return estimate(values, CONFIDENCE) if np.isfinite(values).all() else None


def speed_up(curves: Sequence[tuple[Curve, Curve]]) -> Estimate | None:
    """The geometric mean over the seeds of the ratio of compute to the baseline's final loss."""
    ratios = [base.largest(FLOPS) / own.needed(FLOPS, float(base.loss[-1])) for own, base in curves]
    if not np.isfinite(ratios).all():
        return None
    logs = estimate(list(np.log(ratios)), CONFIDENCE)
    return Estimate(*(float(np.exp(x)) for x in (logs.value, logs.low, logs.high)))


def estimate(values: Sequence[float], confidence: float) -> Estimate:
    """The mean with its t interval."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return Estimate(mean, np.nan, np.nan)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(mean, mean - half, mean + half)
