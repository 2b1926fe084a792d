"""Measurement of contestants in alternation: medians and ratios over several rounds."""

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
    """Measure all contestants in turn, several times, so that a slow minute affects all of them.

    Each contestant has its own process. So its threads, memory and caches do not affect the others.

    Args:
        contestants: by name. Each value is a picklable function, which builds the function of a turn;
            that one returns a speed.
        rounds: turns of each contestant, after one warm-up turn.
        baseline: name of the contestant to which ratios are relative.

    Returns:
        A row per contestant, the fastest first: the median and range of its speed, and the median of its
        ratio to the baseline in the same round.
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
