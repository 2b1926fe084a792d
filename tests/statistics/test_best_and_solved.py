"""The set of combinations that may be the best, and counts of solved tasks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from modgpt.statistics.best import may_be_best
from modgpt.statistics.noise import CELL, LOSS, Noise, seed_noise
from modgpt.statistics.pairs import Factor
from modgpt.statistics.solved import solved_counts
from tests.statistics.designs import frame_of, one_factor


def test_the_best_is_among_those_that_stay_in_95_per_cent() -> None:
    """All means equal: any cell is the best, so the first must stay in at least 95 % of sweeps."""
    rng = np.random.default_rng(0)
    out = 0
    for _ in range(1000):
        samples = rng.normal(0, 1, (12, 3))
        noise = seed_noise(one_factor(list(samples))[0])
        out += not may_be_best(samples.mean(axis=1), np.full(12, 3.0), noise)[0]
    assert out / 1000 < 0.05


def test_agrees_with_scipys_tukey_hsd() -> None:
    rng = np.random.default_rng(3)
    samples = [rng.normal(0.6 * i, 1, 5) for i in range(6)]
    frame, _ = one_factor(samples)
    squares = sum(((s - s.mean()) ** 2).sum() for s in samples)
    noise = Noise(float(np.sqrt(squares / 24)), 24, False, None, None, 6, 5, False)
    means = np.array([s.mean() for s in samples])
    found = may_be_best(means, np.full(6, 5.0), noise)
    p = stats.tukey_hsd(*samples).pvalue[np.argmin(means)]
    np.testing.assert_array_equal(found, p > 0.05)
    assert not found.all() and found.sum() > 1 and len(frame) == 30


def test_without_noise_every_cell_may_be_the_best() -> None:
    noise = Noise(None, 0, False, None, None, 0, 1, False)
    assert may_be_best(np.array([1.0, 2.0]), np.ones(2), noise).all()


def task(solved: dict[str, tuple[int, int]]) -> tuple[list, list[Factor]]:
    rows = [
        ({"part": part}, seed, 0.01 if seed < k else 2.0)
        for part, (k, n) in solved.items()
        for seed in range(n)
    ]
    frame = frame_of(rows)
    frame["accuracy"] = (frame[LOSS] < 1).astype(float)
    return [frame], [Factor("part", tuple(solved))]


def test_counts_have_exact_intervals_and_fishers_test() -> None:
    (frame,), factors = task({"base": (1, 12), "good": (11, 12), "like": (2, 12)})
    good, like = solved_counts(frame, factors, ["part"], "accuracy")
    assert (good.solved, good.runs, good.base_solved, good.base_runs) == (11, 12, 1, 12)
    assert good.p == pytest.approx(stats.fisher_exact([[11, 1], [1, 11]]).pvalue)  # pyright: ignore
    assert (good.low, good.high) == pytest.approx(
        (stats.beta.ppf(0.025, 11, 2), stats.beta.ppf(0.975, 12, 1))  # Clopper and Pearson
    )
    assert good.verdict == "better" and like.verdict == "cannot tell"
    assert set(frame[CELL]) == {0, 1, 2}


def test_fewer_solved_is_worse() -> None:
    (frame,), factors = task({"base": (12, 12), "bad": (0, 12)})
    assert solved_counts(frame, factors, ["part"], "accuracy")[0].verdict == "worse"


def test_three_runs_cannot_tell() -> None:
    (frame,), factors = task({"base": (3, 3), "bad": (0, 3)})
    assert solved_counts(frame, factors, ["part"], "accuracy")[0].verdict == "cannot tell"
