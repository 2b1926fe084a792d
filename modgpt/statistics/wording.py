"""A verdict in words, with what belongs to it."""

from __future__ import annotations

import numpy as np

from modgpt.statistics.differences import Difference
from modgpt.statistics.verdict import OPEN, SAME


def verdict_words(found: Difference, delta: float) -> str:
    """`better`, `same (within ±0.02)`, `cannot tell (needs about 12 seeds)`, `depends on pos`, …"""
    if found.verdict == SAME:
        return f"same (within ±{delta:g})"
    if found.verdict != OPEN:
        return found.verdict
    if not found.contexts:
        return f"{OPEN} (no run is alike in all else)"
    if not np.isfinite(found.low):
        return f"{OPEN} (one seed)"
    return f"{OPEN} ({f'needs about {found.needs} seeds' if found.needs else 'more seeds do not help'})"
