"""The noise of the validation text: how a difference of losses would vary from text to text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import ceil, nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from modgpt.runs.window_losses import WindowLosses

FEWEST = 20  # pieces of text; from fewer nothing is estimated
REPETITIONS = 2000
# Times the length of Politis and White, which makes the variance most exact. Longer blocks let intervals
# cover better (tests/compare/test_text_noise.py).
LENGTHENED = 2.0
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TextDifference:
    """A difference of two mean losses, and its noise over texts.

    Attributes:
        difference: of the validation losses, first minus second, in nats per target.
        standard_error: over texts of this kind and length; NaN with fewer than `FEWEST` pieces.
        low, high: the interval.
        pieces: of text, each measured for both sides.
        block: pieces in a block.
    """

    difference: float
    standard_error: float
    low: float
    high: float
    pieces: int
    block: int


def text_difference(
    first: Sequence[WindowLosses],
    second: Sequence[WindowLosses],
    level: float = 0.95,
    seed: int = 0,
) -> TextDifference:
    """The difference of two mean losses on one text, with its interval over texts.

    The trained models are held fixed: the interval says how the difference would vary over other texts
    of the same kind and length. It leaves out the noise of seeds. A claim about both adds the squares of
    both standard errors.

    Both sides are measured on the same pieces of text, so what makes a piece hard for both cancels.
    Neighbouring pieces resemble each other, so whole blocks of neighbours are drawn: the block bootstrap
    (Künsch 1989, "The jackknife and the bootstrap for general stationary observations"). Blocks wrap
    around at the end of the text (Politis & Romano 1992). Their length is chosen from the data (Politis
    & White 2004; Patton, Politis & White 2009). The interval is ±t·se with one degree of freedom less
    than there are blocks. The variance of block means is too small by 1 − block/n, which se makes good.

    Args:
        first: the runs of one side, such as those of several seeds; the loss of a piece is their mean.
        second: the runs of the other side.
        level: of the interval.
        seed: of the drawing.

    Raises:
        ValueError: a side has no run, or the runs were not validated on the same number of targets.
    """
    from arch.bootstrap import CircularBlockBootstrap

    if not first or not second:
        raise ValueError("each side needs at least one run")
    bounds = common_bounds([*first, *second])
    nats = np.diff(mean_at(bounds, first) - mean_at(bounds, second), prepend=0.0)
    targets = np.diff(bounds, prepend=0).astype(float)
    difference, n = float(nats.sum() / targets.sum()), len(nats)
    if n < FEWEST:
        return TextDifference(difference, nan, nan, nan, n, n)
    block = block_length((nats - difference * targets) / targets.mean())
    drawn = CircularBlockBootstrap(block, nats, targets, seed=np.random.default_rng(seed))
    means = drawn.apply(lambda x, counts: x.sum() / counts.sum(), REPETITIONS)
    error = float(means.std(ddof=1)) * sqrt(n / (n - block))
    half = float(stats.t.ppf((1 + level) / 2, n / block - 1)) * error
    return TextDifference(difference, error, difference - half, difference + half, n, block)


def common_bounds(runs: Sequence[WindowLosses]) -> NDArray[np.int64]:
    """The numbers of targets after which a window ends in every run.

    So windows of other lengths are compared on the pieces of text that they share.

    Raises:
        ValueError: the runs were validated on texts of different lengths.
    """
    totals = {int(run.targets.sum()) for run in runs}
    if len(totals) > 1:
        several = ", ".join(f"{total:,}" for total in sorted(totals))
        raise ValueError(f"the runs were validated on different numbers of targets: {several}")
    ends = [np.cumsum(run.targets, dtype=np.int64) for run in runs]
    bounds = reduce(np.intersect1d, ends)
    return bounds[bounds > 0]


def mean_at(bounds: NDArray[np.int64], runs: Sequence[WindowLosses]) -> Floats:
    """The nats of the text up to each bound, as a mean over the runs."""
    sums = np.zeros(len(bounds))
    for run in runs:
        ends = np.cumsum(run.targets, dtype=np.int64)
        last = np.searchsorted(ends, bounds, side="right") - 1
        sums += np.cumsum(run.nats, dtype=np.float64)[last]
    return sums / len(runs)


def block_length(values: Floats) -> int:
    """How many neighbours to keep together, at most an eighth of all."""
    from arch.bootstrap import optimal_block_length

    if np.ptp(values) <= 1e-12:
        return 1
    length = float(optimal_block_length(values)["circular"].iloc[0])
    return min(max(1, ceil(LENGTHENED * length)), len(values) // 8)
