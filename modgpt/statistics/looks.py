"""Stop when sure: the confidence that each look at the results needs, and what stays open after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import ceil, sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats

from modgpt.statistics.differences import Difference, differences
from modgpt.statistics.noise import seed_noise
from modgpt.statistics.pairs import Factor, Pairs, find_cells, find_pairs
from modgpt.statistics.verdict import OPEN


def look_confidence(seeds: Sequence[int], confidence: float) -> float:
    """The confidence of the intervals at each look, so that those of all looks hold together.

    A sweep that adds seeds until it is sure looks at its results after each number of seeds. The same
    critical value serves at every look (Pocock 1977, *Group sequential methods in the design and
    analysis of clinical trials*). The intervals then hold at whatever look an option stops (Jennison and
    Turnbull 1989, repeated confidence intervals). Solves P(max_k |Z_k| ≤ c) = `confidence` for the
    normal statistics Z_k of one difference, whose correlation at n_j ≤ n_k seeds is √(n_j / n_k), and
    returns P(|Z| ≤ c). The t intervals of a look use this confidence in place of their own.

    Args:
        seeds: per combination at each look, rising.
        confidence: of all looks together.
    """
    return _confidence(tuple(seeds), confidence)


@lru_cache(maxsize=256)
def _confidence(seeds: tuple[int, ...], confidence: float) -> float:
    if len(seeds) == 1:
        return confidence
    n = np.array(seeds, dtype=float)
    correlation = np.sqrt(np.minimum.outer(n, n) / np.maximum.outer(n, n))
    joint: Any = stats.multivariate_normal

    def excess(c: float) -> float:
        limit = np.full(len(n), c)
        inside = joint.cdf(
            limit, cov=correlation, allow_singular=True, lower_limit=-limit,
            rng=np.random.default_rng(0),
        )  # fmt: skip
        return float(inside) - confidence

    alone = float(stats.norm.ppf((1 + confidence) / 2))
    bonferroni = float(stats.norm.ppf(1 - (1 - confidence) / 2 / len(n)))
    c = float(optimize.brentq(excess, alone, bonferroni, xtol=1e-4))  # pyright: ignore
    return float(2 * stats.norm.cdf(c) - 1)


def look(
    frame: pd.DataFrame,
    factors: Sequence[Factor],
    names: Sequence[str],
    delta: float,
    confidence: float,
) -> tuple[list[Difference], dict[int, int]]:
    """One look: all differences, and for how many open options each cell needs more seeds.

    An option without a verdict keeps its own cells and those of its baseline open, unless no number of
    seeds would decide, because the difference itself scatters between contexts.

    Args:
        frame, factors, names, delta: as for `differences`.
        confidence: of this look, from `look_confidence`.

    Returns:
        The differences; and by the index of the cell the number of open options that it is compared for.
    """
    noise = seed_noise(frame)
    found = differences(frame, factors, names, noise, delta, confidence)
    pairs = find_pairs(find_cells(frame, names), factors)
    undecided = [
        of_option
        for difference, of_option in zip(found, pairs, strict=True)
        if difference.verdict == OPEN and (difference.needs is not None or noise.sigma is None)
    ]
    return found, options_of(undecided)


def options_of(pairs: Iterable[Pairs]) -> dict[int, int]:
    """For how many options each cell is compared, by its index: as their own cell or their baseline."""
    counted = Counter[int]()
    for of_option in pairs:
        for pair in of_option.pairs:
            counted.update((pair.option.index, pair.base.index))
    return dict(counted)


def seeds_at(seeds: int, options: int) -> int:
    """The seeds of a cell at a look: √k times as many where it is compared for k options.

    With a runs of each of k options and b of their baseline, the variance of a difference is
    σ² (1/a + 1/b); for a given number of runs it is smallest at b = √k · a (Dunnett 1955).
    """
    return ceil(seeds * sqrt(options))
