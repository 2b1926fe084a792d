"""Contestants take turns, and the numbers are medians of what they returned."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path

import pytest

from benchmarks.rounds import Turn, alternate


def contestant(name: str, speeds: list[float], log: Path) -> Turn:
    """Returns one speed after the other, the first for the turn that is not counted."""
    turns = count()

    def turn() -> float:
        with log.open("a") as file:
            file.write(name)
        return speeds[next(turns)]

    return turn


def test_turns_alternate_and_ratios_are_those_within_a_round(tmp_path: Path) -> None:
    log = tmp_path / "log"
    speeds = {"a": [999.0, 10.0, 20.0, 90.0], "b": [999.0, 30.0, 10.0, 90.0]}
    contestants = {name: partial(contestant, name, values, log) for name, values in speeds.items()}
    first, second = alternate(contestants, rounds=3, baseline="a")
    assert log.read_text() == "ab" * 4
    assert first["contestant"] == "b" and first["per second"] == 30
    assert (first["lowest"], first["highest"]) == (10, 90)
    assert first["ratio"] == pytest.approx(1), "of 3, 0.5 and 1"
    assert second == {"contestant": "a", "per second": 20, "lowest": 10, "highest": 90, "ratio": 1}
