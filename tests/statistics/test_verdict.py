"""Verdicts read off intervals, and the seeds that a verdict takes."""

from __future__ import annotations

import numpy as np
import pytest

from modgpt.statistics.power import plan, smallest_shown
from modgpt.statistics.verdict import POWER, seeds_needed, verdict
from tests.statistics.designs import judged, one_factor


@pytest.mark.parametrize(
    "low, high, said",
    [
        (0.001, 0.1, "worse"),
        (-0.1, -0.001, "better"),
        (-0.01, 0.1, "cannot tell"),
        (-0.019, 0.019, "same"),
        (0.001, 0.019, "same"),  # differs, by less than matters
        (-0.021, 0.01, "cannot tell"),
        (np.nan, np.nan, "cannot tell"),
        (-np.inf, np.inf, "cannot tell"),
    ],
)
def test_verdict(low: float, high: float, said: str) -> None:
    assert verdict(low, high, 0.02) == said


def test_seeds_needed_fall_with_the_distance_that_decides() -> None:
    needed = [seeds_needed(d, 0.02, 0.0125, 3.0) for d in (0.0, 0.01, 0.02, 0.04, 0.4)]
    assert needed[1] == max(n for n in needed if n is not None)  # halfway is hardest
    assert needed[0] == needed[2] and needed[4] == 2
    assert seeds_needed(0.01, 0.02, 1.0, 3.0) is None


@pytest.mark.parametrize("difference", [0.0, 0.05])
def test_as_many_seeds_as_needed_give_a_verdict_in_80_per_cent(difference: float) -> None:
    """`needs` of an undecided option, computed with its true difference, then simulated."""
    rng = np.random.default_rng(0)
    n = seeds_needed(difference, 0.02, 0.02, 2.5)
    assert n is not None
    decided = 0
    for _ in range(200):
        samples = [rng.normal(0, 0.02, n) + (difference if i == 1 else 0) for i in range(4)]
        decided += judged(*one_factor(samples))["part=1"].verdict != "cannot tell"
    assert decided / 200 > POWER - 0.15


@pytest.mark.parametrize("size", [0.02, 0.01])
def test_the_plan_shows_its_difference_in_80_per_cent(size: float) -> None:
    (planned,) = plan(0.01, 4, (size,))
    rng = np.random.default_rng(0)
    assert planned.to_show is not None and planned.to_call_same is not None
    shown = same = 0
    for _ in range(300):
        samples = [rng.normal(0, 0.01, planned.to_show) + (size if i == 1 else 0) for i in range(5)]
        shown += judged(*one_factor(samples), delta=1e-9)["part=1"].verdict == "worse"
        samples = rng.normal(0, 0.01, (5, planned.to_call_same))
        same += judged(*one_factor(list(samples)), delta=size)["part=1"].verdict == "same"
    assert shown / 300 == pytest.approx(POWER, abs=0.08)
    assert same / 300 == pytest.approx(POWER, abs=0.08)


def test_more_runs_of_the_baseline_show_smaller_differences() -> None:
    assert smallest_shown(0.01, 3, 16, 4) < smallest_shown(0.01, 3, 16) < smallest_shown(0.01, 2, 16)


def test_a_plan_has_an_end() -> None:
    (planned,) = plan(1.0, 16, (0.005,))
    assert planned.to_show is None and planned.to_call_same is None
