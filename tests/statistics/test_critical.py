"""Critical values against scipy's own tests and published tables."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from modgpt.statistics.critical import sidak, simultaneous_t, tukey_t
from modgpt.statistics.looks import look_confidence


def shared_baseline(m: int) -> np.ndarray:
    return np.full((m, m), 1.0) + np.eye(m)


@pytest.mark.parametrize("m, df, table", [(1, 10, 2.23), (2, 10, 2.57), (4, 10, 2.89), (9, 20, 2.95)])
def test_dunnetts_table(m: int, df: int, table: float) -> None:
    """Two-sided, 5 %: Dunnett (1964), *New tables for multiple comparisons with a control*, table II."""
    assert simultaneous_t(shared_baseline(m), df, 0.95) == pytest.approx(table, abs=0.01)


def test_intervals_are_those_of_scipys_dunnett() -> None:
    rng = np.random.default_rng(0)
    control, *samples = [rng.normal(size=n) for n in (8, 3, 4, 3, 5)]
    sizes = np.array([len(sample) for sample in samples])
    covariance = np.full((4, 4), 1 / 8) + np.diag(1 / sizes)
    df = 8 + sizes.sum() - 5
    squares = sum(((s - s.mean()) ** 2).sum() for s in (control, *samples))
    half = simultaneous_t(covariance, df, 0.95) * np.sqrt(squares / df * np.diag(covariance))
    theirs = stats.dunnett(*samples, control=control, rng=np.random.default_rng(0))
    expected = theirs.confidence_interval(0.95)
    np.testing.assert_allclose(2 * half, expected.high - expected.low, rtol=0.01)


def test_differences_that_depend_on_each_other() -> None:
    """Seven differences between six cells, as a grid of 3 × 2 has them: rounded, no longer definite."""
    runs = np.array([3, 2, 2, 2, 2, 2])
    pairs = [(2, 0), (3, 1), (4, 0), (5, 1), (1, 0), (3, 2), (5, 4)]
    contrasts = np.zeros((7, 6))
    for row, (option, base) in zip(contrasts, pairs, strict=True):
        row[option], row[base] = 1, -1
    covariance = contrasts / runs @ contrasts.T
    rng = np.random.default_rng(0)
    means = rng.standard_normal((200_000, 6)) / np.sqrt(runs)
    scatter = np.sqrt(rng.chisquare(7, (200_000, 1)) / 7)
    largest = np.abs(means @ contrasts.T / np.sqrt(np.diag(covariance)) / scatter).max(axis=1)
    expected = np.quantile(largest, 0.95)
    assert simultaneous_t(covariance, 7, 0.95) == pytest.approx(expected, abs=0.03)


def test_many_estimates_have_sidaks_bound() -> None:
    q = simultaneous_t(shared_baseline(60), 100, 0.95)
    assert q == pytest.approx(stats.t.ppf((1 + 0.95 ** (1 / 60)) / 2, 100))
    assert sidak(0.95, 60) ** 60 == pytest.approx(0.95)


def test_the_value_lies_between_one_interval_and_independent_ones() -> None:
    for m in (2, 5, 20):
        q = simultaneous_t(shared_baseline(m), 30, 0.95)
        assert stats.t.ppf(0.975, 30) < q < stats.t.ppf((1 + sidak(0.95, m)) / 2, 30)


def test_tukeys_value_for_two_means_is_students() -> None:
    assert tukey_t(2, 12, 0.95) == pytest.approx(stats.t.ppf(0.975, 12), rel=1e-4)


@pytest.mark.parametrize("looks, constant", [(2, 2.178), (3, 2.289), (4, 2.361), (5, 2.413)])
def test_pococks_constants(looks: int, constant: float) -> None:
    """Equally spaced looks, 5 %: Jennison and Turnbull (2000), *Group sequential methods*, table 2.1."""
    confidence = look_confidence(range(1, looks + 1), 0.95)
    assert stats.norm.ppf((1 + confidence) / 2) == pytest.approx(constant, abs=0.005)


def test_one_look_keeps_its_confidence() -> None:
    assert look_confidence([5], 0.95) == 0.95
