"""A verdict in words, with what belongs to it."""

from __future__ import annotations

import numpy as np

from modgpt.statistics.differences import Difference
from modgpt.statistics.verdict import OPEN, SAME


def verdict_words(found: Difference, delta: float) -> str:
    """`better`, `same (within ±0.02)`, `cannot tell (needs about 12 seeds)`, `depends on pos`, …"""
    note = verdict_note(found, delta)
    return f"{found.verdict} ({note})" if note else found.verdict


def verdict_note(found: Difference, delta: float) -> str:
    """What belongs to a verdict: δ, or what is missing for one; empty where it says all."""
    if found.verdict == SAME:
        return f"within ±{delta:g}"
    if found.verdict != OPEN:
        return ""
    if not found.contexts:
        return "no run is alike in all else"
    if not np.isfinite(found.low):
        return "one seed"
    return f"needs about {found.needs} seeds" if found.needs else "more seeds do not help"
