"""Does the sign of a difference turn with another factor?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from modgpt.statistics.critical import sidak
from modgpt.statistics.pairs import Pairs
from modgpt.statistics.verdict import BETTER, WORSE, verdict

MANY = 4  # contexts, from which on their scatter is the error of a difference


@dataclass(frozen=True)
class Part:
    """The difference of an option in the contexts with one level of another factor."""

    level: str
    value: float
    low: float
    high: float
    verdict: str
    contexts: int
    won: int


def turning_factor(pairs: Pairs, delta: float, confidence: float) -> tuple[str, tuple[Part, ...]] | None:
    """The factor with which an option is better at one level and worse at another; None without one.

    Every level has a t interval over its contexts; all of one factor hold together. Of several factors
    the one counts that explains most of the scatter.
    """
    d = pairs.values
    best, explained = None, 0.0
    for name in pairs.pairs[0].base.choices:
        levels = np.array([pair.base.choices[name] for pair in pairs.pairs])
        groups = {str(level): d[levels == level] for level in dict.fromkeys(levels)}
        if name == pairs.factor.name or len(groups) < 2:
            continue
        each = sidak(confidence, len(groups))
        parts = tuple(part(level, group, delta, each) for level, group in groups.items())
        between = sum(len(group) * (group.mean() - d.mean()) ** 2 for group in groups.values())
        if {BETTER, WORSE} <= {p.verdict for p in parts} and between > explained:
            best, explained = (name, parts), between
    return best


def part(level: str, d: np.ndarray, delta: float, confidence: float) -> Part:
    """The difference at one level, from the scatter over its contexts."""
    value, n = float(d.mean()), len(d)
    half = np.nan
    if n > 1:
        half = float(stats.t.ppf((1 + confidence) / 2, n - 1) * d.std(ddof=1) / np.sqrt(n))
    low, high = value - half, value + half
    return Part(level, value, low, high, verdict(low, high, delta), n, int((d < 0).sum()))
