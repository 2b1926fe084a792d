"""Measuring side by side: everybody in turn, several times, medians and ratios."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any

from rich.progress import track

Row = dict[str, Any]
Turn = Callable[[], float]

_turn: Turn


def alternate(contestants: Mapping[str, Callable[[], Turn]], rounds: int, baseline: str) -> list[Row]:
    """Let every contestant have its turn, over and over, so that a slow minute hits all of them.

    Each lives in a process of its own, so that what one does to its process (threads, memory, caches)
    does not help or harm another.

    Args:
        contestants: by name; each makes the function that is called for a turn and returns a speed. Both
            names and makers must be picklable.
        rounds: turns of each, after one that is not counted.
        baseline: the contestant that the others are ratios to.

    Returns:
        A row per contestant, the fastest first: the median speed, its range, the median over the rounds
        of the ratio to the baseline's speed in the same round.
    """
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        processes = {
            name: stack.enter_context(
                ProcessPoolExecutor(1, mp_context=context, initializer=_prepare, initargs=(make,))
            )
            for name, make in contestants.items()
        }
        for process in processes.values():
            process.submit(_take_turn).result()
        for _ in track(range(rounds), "rounds", transient=True):
            for name, process in processes.items():
                speeds[name].append(process.submit(_take_turn).result())
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


def _prepare(make: Callable[[], Turn]) -> None:
    global _turn
    _turn = make()


def _take_turn() -> float:
    return _turn()
