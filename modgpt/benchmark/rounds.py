"""Measuring side by side: everybody in turn, several times, medians and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

from rich.progress import track

Row = dict[str, Any]


def alternate(contestants: Mapping[str, Callable[[], float]], rounds: int, baseline: str) -> list[Row]:
    """Let every contestant have its turn, over and over, so that a slow minute hits all of them.

    Args:
        contestants: by name; each returns a speed.
        rounds: turns of each.
        baseline: the contestant that the others are ratios to.

    Returns:
        A row per contestant, the fastest first: the median speed, its range, the median over the rounds
        of the ratio to the baseline's speed in the same round.
    """
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in track(range(rounds), "rounds", transient=True):
        for name, turn in contestants.items():
            speeds[name].append(turn())
    rows = [
        {
            "contestant": name,
            "per second": statistics.median(measured),
            "lowest": min(measured),
            "highest": max(measured),
            "ratio": statistics.median(
                own / other for own, other in zip(measured, speeds[baseline], strict=True)
            ),
        }
        for name, measured in speeds.items()
    ]
    return sorted(rows, key=lambda row: -row["per second"])
