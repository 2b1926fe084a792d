"""Every option against the baseline of its factor, with intervals that hold together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pandas as pd
from scipy import stats

from modgpt.statistics.critical import Matrix, sidak, simultaneous_t
from modgpt.statistics.noise import CELL, LOSS, Noise
from modgpt.statistics.pairs import Factor, Pair, Pairs, Vector, find_cells, find_pairs
from modgpt.statistics.turning import MANY, Part, turning_factor
from modgpt.statistics.verdict import CONFIDENCE, DELTA, OPEN, seeds_needed, verdict

# What an interval is made from.
SEEDS = "seed noise"
OWN = "own seed noise"
CONTEXTS = "scatter over contexts"
NOTHING = "one seed"


@dataclass(frozen=True)
class Difference:
    """An option's loss minus its baseline's, in nats per token; below zero is better.

    Attributes:
        factor, option, baseline: what is compared.
        value: mean over the contexts; NaN where the sign turns with another factor, or nothing pairs.
        low, high: its interval; all intervals of a comparison hold together with 95 % confidence.
        error: what the interval is made from.
        verdict: better, worse, same, cannot tell, or `depends on …`.
        needs: seeds per combination for a verdict, where there is none; None if no number helps.
        contexts, won: in how many contexts both were run, and in how many the option's mean is lower.
        parts: for an option whose sign turns with another factor, the difference by that factor.
    """

    factor: str
    option: str
    baseline: str
    value: float
    low: float
    high: float
    error: str
    verdict: str
    needs: int | None
    contexts: int
    won: int
    parts: tuple[Part, ...] = ()


def differences(
    frame: pd.DataFrame,
    factors: Sequence[Factor],
    names: Sequence[str],
    noise: Noise,
    delta: float = DELTA,
    confidence: float = CONFIDENCE,
) -> list[Difference]:
    """All differences from the baselines.

    Three errors, by the number of contexts in which an option meets its baseline:

    - one, as in a sweep of one choice at a time: the seed noise, with Dunnett's critical value. Where
      the spreads differ, and where that is wider, the own spread of the two cells (Welch 1947).
    - two or three: the same, in every context. The interval reaches from the lowest to the highest of
      them, so that a verdict holds in each context.
    - four and more: the scatter of the difference over the contexts, in a t interval. It includes the
      seed noise, and what the option does differently in each context.

    Args:
        frame: a row per run: the factors, `cell`, `seed`, the final loss.
        factors: whose options are compared.
        names: of all factors in which the runs differ.
        noise: of these runs.
        delta: differences below it count as the same.
        confidence: of all intervals together.
    """
    all_pairs = find_pairs(find_cells(frame, names), factors)
    few = [pairs for pairs in all_pairs if 0 < len(pairs) < MANY]
    many = [pairs for pairs in all_pairs if len(pairs) >= MANY]
    single = sum(map(len, few)) if noise.sigma is not None else 0
    each = sidak(confidence, max(1, single + len(many)))
    found = {}
    if single:
        found = from_seeds(frame, few, noise, delta, each**single)
    for pairs in all_pairs:
        key = (pairs.factor.name, pairs.option)
        if len(pairs) >= MANY:
            found[key] = from_contexts(pairs, noise, delta, each)
        elif key not in found:
            found[key] = without_error(pairs)
    return [found[pairs.factor.name, pairs.option] for pairs in all_pairs]


def from_seeds(
    frame: pd.DataFrame, few: Sequence[Pairs], noise: Noise, delta: float, confidence: float
) -> dict[tuple[str, str], Difference]:
    """Differences with the seed noise as their error, each context by itself."""
    assert noise.sigma is not None
    pairs_of_all = [pair for pairs in few for pair in pairs.pairs]
    covariance = difference_covariance(pairs_of_all)
    q = simultaneous_t(covariance, noise.df, confidence)
    value = np.array([pair.difference for pair in pairs_of_all])
    half = q * noise.sigma * np.sqrt(np.diag(covariance))
    own = np.zeros(len(half))
    if noise.unequal:
        own = welch_half_widths(frame, pairs_of_all, sidak(confidence, len(half)))
    wider = np.maximum(half, own)
    found, start = {}, 0
    for pairs in few:
        part = slice(start, start := start + len(pairs))
        low, high = float((value - wider)[part].min()), float((value + wider)[part].max())
        mean = float(value[part].mean())
        said, needs = verdict(low, high, delta), None
        if said == OPEN and np.isfinite(low):
            # An option's own spread can be wider than the noise of all, which can be 0.
            ratio = np.divide(wider, half, out=np.ones_like(half), where=half > 0)[part].max()
            sigma = noise.sigma * float(ratio)
            needs = seeds_needed(mean, delta, sigma, q)
        found[pairs.factor.name, pairs.option] = Difference(
            *(pairs.factor.name, pairs.option, pairs.factor.baseline, mean, low, high),
            error=OWN if (own > half)[part].any() else SEEDS,
            verdict=said,
            needs=needs,
            contexts=len(pairs),
            won=int((value[part] < 0).sum()),
        )
    return found


def difference_covariance(pairs: Sequence[Pair]) -> Matrix:
    """The covariance of the differences at σ = 1: those that share a cell are correlated."""
    cells = sorted({cell.index for pair in pairs for cell in (pair.option, pair.base)})
    place = {cell: i for i, cell in enumerate(cells)}
    weights, variance = np.zeros((len(pairs), len(cells))), np.zeros(len(cells))
    for i, pair in enumerate(pairs):
        for cell, sign in ((pair.option, 1), (pair.base, -1)):
            weights[i, place[cell.index]] = sign
            variance[place[cell.index]] = 1 / cell.n
    return weights * variance @ weights.T


def welch_half_widths(frame: pd.DataFrame, pairs: Sequence[Pair], confidence: float) -> Vector:
    """Half widths from the two cells' own spreads; infinite where one of them has a single seed."""
    by_cell = frame.groupby(CELL)[LOSS]
    squares = by_cell.var() / by_cell.size()
    freedom = by_cell.size() - 1
    halves = []
    for pair in pairs:
        i, j = pair.option.index, pair.base.index
        a, b = squares[i], squares[j]
        if not np.isfinite(a + b):
            halves.append(np.inf)
            continue
        df = (a + b) ** 2 / (a**2 / freedom[i] + b**2 / freedom[j]) if a + b else 1
        halves.append(stats.t.ppf((1 + confidence) / 2, df) * np.sqrt(a + b))
    return np.array(halves)


def from_contexts(pairs: Pairs, noise: Noise, delta: float, confidence: float) -> Difference:
    """A difference with its scatter over the contexts as the error; no mean where the sign turns."""
    d = pairs.values
    value, spread = float(d.mean()), float(d.std(ddof=1))
    q = float(stats.t.ppf((1 + confidence) / 2, len(d) - 1))
    half = q * spread / np.sqrt(len(d))
    turned = turning_factor(pairs, delta, confidence)
    low, high = value - half, value + half
    said, needs = verdict(low, high, delta), None
    if turned:
        said, value, low, high = f"depends on {turned[0]}", np.nan, np.nan, np.nan
    elif said == OPEN and noise.sigma is not None:
        needs = seeds_for_contexts(pairs, noise.sigma, delta, q)
    return Difference(
        *(pairs.factor.name, pairs.option, pairs.factor.baseline, value, low, high),
        error=CONTEXTS,
        verdict=said,
        needs=needs,
        contexts=len(d),
        won=int((d < 0).sum()),
        parts=turned[1] if turned else (),
    )


def seeds_for_contexts(pairs: Pairs, sigma: float, delta: float, q: float) -> int | None:
    """The seeds per combination for a verdict; None where the scatter between contexts prevents it.

    More seeds make the share of the noise smaller, and leave what truly differs between contexts.
    """
    d = pairs.values
    of_noise = fmean(1 / pair.option.n + 1 / pair.base.n for pair in pairs.pairs) * sigma**2
    lasting = max(0.0, float(d.var(ddof=1)) - of_noise)
    margin = max(abs(d.mean()), delta - abs(d.mean()))
    left = len(d) * (margin / q) ** 2 - lasting
    return max(2, int(np.ceil(2 * sigma**2 / left))) if left > 0 else None


def without_error(pairs: Pairs) -> Difference:
    """A difference that nothing says the uncertainty of: no replicates, or no pair at all."""
    d = pairs.values
    return Difference(
        *(pairs.factor.name, pairs.option, pairs.factor.baseline),
        *(float(d.mean()) if len(d) else np.nan, np.nan, np.nan),
        error=NOTHING,
        verdict=OPEN,
        needs=None,
        contexts=len(d),
        won=int((d < 0).sum()),
    )
