"""How many seeds show a difference: the plan of a sweep, from the noise of earlier runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from modgpt.statistics.critical import sidak
from modgpt.statistics.verdict import CONFIDENCE, MOST_SEEDS, POWER


@dataclass(frozen=True)
class Plan:
    """The seeds per combination that one size of difference takes.

    Attributes:
        difference: nats per token.
        to_show: seeds with which an option that differs by this much is called better or worse, with
            80 % chance; None above `MOST_SEEDS`.
        to_call_same: seeds with which an option that does not differ at all is called the same within
            ± this much, with 80 % chance.
    """

    difference: float
    to_show: int | None
    to_call_same: int | None


def plan(
    sigma: float, options: int, sizes: tuple[float, ...] = (0.02, 0.01, 0.005), baseline_share: float = 1
) -> list[Plan]:
    """The seeds for each size of difference, in a sweep that compares options with one baseline.

    Args:
        sigma: standard deviation of a run's loss from seed to seed.
        options: number of options, the baseline left out.
        sizes: the differences, nats per token.
        baseline_share: runs of the baseline for each run of an option.
    """

    def seeds(chance: Callable[[int], float]) -> int | None:
        if chance(MOST_SEEDS) < POWER:
            return None
        few, most = 2, MOST_SEEDS
        while few < most:
            middle = (few + most) // 2
            few, most = (few, middle) if chance(middle) >= POWER else (middle + 1, most)
        return few

    return [
        Plan(
            size,
            seeds(lambda n, s=size: chance_to_show(s, sigma, n, options, baseline_share)),
            seeds(lambda n, s=size: chance_to_call_same(s, sigma, n, options, baseline_share)),
        )
        for size in sizes
    ]


def design(n: int, options: int, baseline_share: float) -> tuple[float, int, float]:
    """Variance of a difference at σ = 1, degrees of freedom, and critical value.

    The critical value is Šidák's: up to 6 % above Dunnett's, and quick for hundreds of n.
    """
    df = round(options * (n - 1) + n * baseline_share - 1)
    q = float(stats.t.ppf((1 + sidak(CONFIDENCE, options)) / 2, df))
    return (1 + 1 / baseline_share) / n, df, q


def chance_to_show(size: float, sigma: float, n: int, options: int, baseline_share: float = 1) -> float:
    """The chance that one option with this true difference is called better or worse.

    The estimate has a t distribution around the truth; the chance of the wrong sign is left out.
    """
    variance, df, q = design(n, options, baseline_share)
    return float(stats.t.cdf(size / (sigma * np.sqrt(variance)) - q, df))


def chance_to_call_same(
    delta: float, sigma: float, n: int, options: int, baseline_share: float = 1
) -> float:
    """The chance that an option without any difference is called the same within ±delta."""
    variance, df, q = design(n, options, baseline_share)
    inside = delta / (sigma * np.sqrt(variance)) - q
    return max(0.0, float(2 * stats.t.cdf(inside, df) - 1))


def smallest_shown(sigma: float, n: int, options: int, baseline_share: float = 1) -> float:
    """The true difference that n seeds show with 80 % chance: (q + t) · σ · √variance."""
    variance, df, q = design(n, options, baseline_share)
    return float((q + stats.t.ppf(POWER, df)) * sigma * np.sqrt(variance))
