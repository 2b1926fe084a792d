"""Error rates of the verdicts, by simulation: few sweeps by default, thousands behind `slow`."""

from __future__ import annotations

import pytest
from scipy import stats

from benchmarks.calibration import LOOKS, MEASURED, SCENARIOS, simulate, stop_when_sure

PROMISED = [name for name, (_, promised) in SCENARIOS.items() if promised]


@pytest.mark.parametrize("name", PROMISED)
def test_the_family_wise_error_is_five_per_cent(name: str) -> None:
    """Not refuted by 200 sweeps; an engine with twice the error is, nine times out of ten."""
    rates = simulate(SCENARIOS[name][0], 200)
    assert stats.binomtest(rates.wrong, rates.sweeps, 0.05, "greater").pvalue > 0.01, rates


@pytest.mark.slow
@pytest.mark.parametrize("name", ["no difference", "differences of 2 σ", "a run in five failed"])
def test_its_interval_ends_below_six_per_cent(name: str) -> None:
    rates = simulate(SCENARIOS[name][0], 4000)
    assert rates.interval[1] <= 0.06, rates


def test_power_grows_with_the_difference() -> None:
    power = [simulate(SCENARIOS[f"differences of {k} σ"][0], 100).power or 0 for k in (1, 2, 3, 4)]
    assert power == sorted(power) and power[1] > 0.2 and power[3] > 0.9


def test_one_bad_option_takes_no_innocent_one_along() -> None:
    rates = simulate(SCENARIOS["one bad option"][0], 200)
    assert rates.power == 1 and rates.wrong / rates.sweeps < 0.1


@pytest.mark.slow
def test_stopping_when_sure_keeps_the_error_and_saves_runs() -> None:
    found = stop_when_sure(MEASURED, 60, LOOKS)
    assert stats.binomtest(found.wrong, found.sweeps, 0.05, "greater").pvalue > 0.01, found
    assert found.runs < 0.75 * found.fixed_runs, found
