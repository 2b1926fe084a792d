"""What an interval says: better, worse, the same, or that it cannot tell."""

from __future__ import annotations

from math import ceil

import numpy as np
from scipy import stats

CONFIDENCE = 0.95  # of all intervals of a comparison together
DELTA = 0.02  # nats per token; differences below it do not matter unless the user says otherwise
POWER = 0.8  # chance of a verdict that a number of seeds is planned for
Z_POWER = float(stats.norm.ppf(POWER))

BASELINE, BETTER, WORSE, SAME, OPEN = "baseline", "better", "worse", "same", "cannot tell"
VERDICTS = (BETTER, WORSE, SAME, OPEN)
MOST_SEEDS = 1000


def verdict(low: float, high: float, delta: float) -> str:
    """The verdict on a difference in loss, from its interval.

    `same`: the interval lies within ±delta, whether or not it contains zero (Schuirmann 1987, two
    one-sided tests; the interval is wider than theirs, for it serves all verdicts at once). Otherwise
    `better` or `worse` when it excludes zero, and `cannot tell` when it contains zero.
    """
    if not (np.isfinite(low) and np.isfinite(high)):
        return OPEN
    if -delta < low and high < delta:
        return SAME
    if high < 0:
        return BETTER
    return WORSE if low > 0 else OPEN


def seeds_needed(difference: float, delta: float, sigma: float, q: float) -> int | None:
    """The seeds per combination at which a verdict is likely, if the difference stays as measured.

    The smallest n with (q + z) · σ · √(2/n) ≤ the distance that decides: from zero for better or worse,
    or to ±delta for the same, whichever is further. z is the normal quantile of `POWER`.

    Args:
        difference: measured.
        delta: what counts as the same.
        sigma: standard deviation of a run's loss.
        q: critical value of the intervals.

    Returns:
        The number; None above `MOST_SEEDS`.
    """
    margin = max(abs(difference), delta - abs(difference))
    n = max(2, ceil(2 * ((q + Z_POWER) * sigma / margin) ** 2))
    return n if n <= MOST_SEEDS else None
