"""The comparison of a sweep that adds seeds until it is sure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modgpt.compare.comparison import read_comparison
from modgpt.compare.looks import Looks, read_looks
from tests.compare.synthetic import losses, one_at_a_time, write_run

GOOD = {"looks": [3, 4], "confidence": 0.97, "same_within": 0.05, "complete": True}


def make(folder: Path, content: Any) -> Path:
    for choices, seed, loss in losses(one_at_a_time()):
        write_run(folder, choices, seed, loss)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "until_sure.json").write_text(text)
    return folder


def test_the_intervals_account_for_the_looks(tmp_path: Path) -> None:
    once = read_comparison([make(tmp_path / "a", GOOD | {"looks": [3], "confidence": 0.95})])
    twice = read_comparison([make(tmp_path / "b", GOOD)])
    assert twice.statistics.confidence == 0.97 and twice.statistics.delta == 0.05
    for one, two in zip(once.statistics.differences, twice.statistics.differences, strict=True):
        assert two.high - two.low > one.high - one.low
    assert any("looked at its results 2 times" in c for c in twice.words.cautions)
    assert not any("provisional" in c for c in twice.words.cautions)


def test_what_is_typed_wins(tmp_path: Path) -> None:
    found = read_comparison([make(tmp_path, GOOD)], same_within=0.01)
    assert found.statistics.delta == 0.01


def test_a_sweep_that_goes_on_is_provisional(tmp_path: Path) -> None:
    found = read_comparison([make(tmp_path, GOOD | {"complete": False})])
    assert any("provisional" in caution for caution in found.words.cautions)


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "null", "{", "[" * 10_000, {}, GOOD | {"confidence": 2.0}, GOOD | {"confidence": "x"},
        GOOD | {"looks": 3}, GOOD | {"looks": ["3"]}, GOOD | {"same_within": 0},
        GOOD | {"same_within": True}, GOOD | {"complete": 1},
    ],
)  # fmt: skip
def test_a_damaged_file_is_listed(content: Any, tmp_path: Path) -> None:
    folder = make(tmp_path, content)
    looks, problems = read_looks([folder / "a run"])
    assert looks == Looks() and len(problems) == 1
    assert "until_sure.json" in str(problems[0])
