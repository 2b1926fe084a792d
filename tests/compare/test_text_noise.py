"""The noise of the validation text, against series whose noise is known."""

from __future__ import annotations

from math import isnan, sqrt

import numpy as np
import pytest
from scipy.signal import lfilter

from modgpt.compare.text_noise import text_difference
from modgpt.runs.window_losses import WindowLosses

TOKENS = 64


def windows(per_token: np.ndarray, targets: int | np.ndarray = TOKENS) -> WindowLosses:
    """Windows with these mean losses."""
    counts = np.broadcast_to(np.asarray(targets, np.int32), per_token.shape)
    return WindowLosses(step=1, nats=per_token * counts, targets=counts.copy())


def ar1(n: int, rho: float, seed: int) -> np.ndarray:
    """x(t) = ρ·x(t−1) + e(t), e of variance 1. The mean of n values has the variance 1/(n·(1−ρ)²)."""
    return lfilter([1], [1, -rho], np.random.default_rng((seed, n)).standard_normal(n + 300))[300:]


def shared(n: int) -> np.ndarray:
    """How hard each window is for every model: far more than models differ."""
    return 1.7 + np.random.default_rng(9).standard_normal(n)


def check_coverage(rho: float, repeats: int) -> None:
    """The standard error is right on average, and 95 % of the intervals hold the truth."""
    n, truth = 1743, 0.02
    hits, errors = 0, []
    for seed in range(repeats):
        noisy = shared(n) + truth + 0.1 * ar1(n, rho, seed)
        found = text_difference([windows(noisy)], [windows(shared(n))])
        hits += found.low <= truth <= found.high
        errors.append(found.standard_error)
    assert np.mean(errors) == pytest.approx(0.1 / ((1 - rho) * sqrt(n)), rel=0.1)
    assert abs(hits / repeats - 0.95) <= 3 * sqrt(0.95 * 0.05 / repeats)


def test_intervals_cover_the_truth() -> None:
    check_coverage(rho=0.5, repeats=60)


@pytest.mark.slow
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_intervals_cover_the_truth_often(rho: float) -> None:
    check_coverage(rho, repeats=600)


def test_windows_taken_as_independent_would_not_cover() -> None:
    """What the blocks are for: the naive error of these series is three times too small."""
    n, rho = 1743, 0.8
    x = 0.1 * ar1(n, rho, 0)
    found = text_difference([windows(1.7 + x)], [windows(np.full(n, 1.7))])
    assert found.standard_error > 2 * x.std() / sqrt(n)
    assert found.block > 10


def test_the_difference_is_that_of_the_losses_over_seeds() -> None:
    n = 200
    rng = np.random.default_rng(0)
    a, b = ([windows(shared(n) + rng.normal(0, 0.1, n)) for _ in range(3)] for _ in range(2))
    found = text_difference(a, b)
    wanted = np.mean([w.mean for w in a]) - np.mean([w.mean for w in b])
    assert found.difference == pytest.approx(wanted)
    assert found.low < found.difference < found.high
    back = text_difference(b, a)
    assert (back.difference, back.standard_error) == pytest.approx(
        (-found.difference, found.standard_error)
    )
    assert text_difference(a, b) == found, "the drawing has a seed"
    assert text_difference(a, b, level=0.5).high < found.high


def test_a_short_last_window_counts_by_its_targets() -> None:
    loss, targets = np.full(50, 1.0), np.full(50, TOKENS)
    loss[-1], targets[-1] = 100.0, 1
    found = text_difference([windows(loss, targets)], [windows(np.full(50, 1.0), targets)])
    assert found.difference == pytest.approx(99 / (49 * TOKENS + 1))


def test_windows_of_other_lengths_meet_where_both_end() -> None:
    x = shared(400)
    long = WindowLosses(1, (x * TOKENS).reshape(100, 4).sum(1), np.full(100, 4 * TOKENS, np.int32))
    found = text_difference([windows(x + 0.5)], [long])
    assert (found.pieces, found.difference) == (100, pytest.approx(0.5))
    assert found.standard_error == pytest.approx(0, abs=1e-9)


def test_equal_runs_differ_by_nothing() -> None:
    run = windows(shared(100))
    found = text_difference([run], [run])
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_a_short_text_has_no_interval() -> None:
    found = text_difference([windows(shared(10) + 1)], [windows(shared(10))])
    assert found.difference == pytest.approx(1)
    assert isnan(found.standard_error) and isnan(found.low)


def test_other_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="different numbers of targets: 640, 704"):
        text_difference([windows(shared(10))], [windows(shared(11))])
    with pytest.raises(ValueError, match="at least one run"):
        text_difference([], [windows(shared(10))])
