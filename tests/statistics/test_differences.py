"""Differences and verdicts, against scipy's own tests and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from modgpt.statistics.critical import sidak
from modgpt.statistics.differences import CONTEXTS, NOTHING, OWN, SEEDS
from modgpt.statistics.noise import CELL, LOSS, seed_noise
from tests.statistics.designs import crossed, frame_of, judged, one_factor


def normal(*sizes: int, shift: float = 0.0, sigma: float = 0.01, rng: int = 0) -> list[list[float]]:
    random = np.random.default_rng(rng)
    return [list(1.8 + shift * i + sigma * random.standard_normal(n)) for i, n in enumerate(sizes)]


def test_one_context_is_dunnetts_test() -> None:
    samples = normal(9, 3, 4, 3, shift=0.01)
    found = judged(*one_factor(samples))
    theirs = stats.dunnett(*samples[1:], control=samples[0], rng=np.random.default_rng(0))
    expected = theirs.confidence_interval(0.95)
    for i, difference in enumerate(found.values()):
        assert difference.error == SEEDS and difference.contexts == 1
        assert difference.value == pytest.approx(np.mean(samples[i + 1]) - np.mean(samples[0]))
        assert difference.low == pytest.approx(expected.low[i], abs=1e-4)
        assert difference.high == pytest.approx(expected.high[i], abs=1e-4)


def test_paired_runs_leave_out_the_shift_of_a_seed() -> None:
    shift = {1: 0.3, 2: -0.2, 3: 0.0}
    samples = [[x + shift[s] for s, x in enumerate(xs, start=1)] for xs in normal(3, 3, 3, shift=0.2)]
    frame, factors = one_factor(samples)
    noise = seed_noise(frame)
    table = np.array(samples)
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    assert noise.paired and noise.df == 4
    assert noise.sigma == pytest.approx(np.sqrt((rest**2).sum() / 4))
    assert noise.correlation is not None and noise.correlation > 0.9
    assert judged(frame, factors)["part=2"].verdict == "worse"


def test_extra_runs_of_the_baseline_make_intervals_narrower() -> None:
    few, many = (judged(*one_factor(normal(n, 3, 3)))["part=1"] for n in (3, 30))
    assert many.high - many.low < 0.9 * (few.high - few.low)


def test_spreads_that_differ_widen_the_intervals_of_the_noisy() -> None:
    quiet, loud = normal(6, 6, 6, 6, 6, sigma=0.001), normal(6, sigma=0.2)
    frame, factors = one_factor([*quiet, *loud])
    assert seed_noise(frame).unequal
    found = judged(frame, factors)
    welch = stats.ttest_ind(loud[0], quiet[0], equal_var=False)
    low, high = welch.confidence_interval(sidak(0.95, 5))
    noisy = found["part=5"]
    assert noisy.error == OWN
    assert (noisy.low, noisy.high) == pytest.approx((low, high))
    assert found["part=1"].error == SEEDS  # the pooled spread is the wider one there


def test_a_noisy_option_needs_seeds_for_its_own_spread() -> None:
    quiet, loud = normal(6, 6, 6, 6, 6, sigma=0.001), normal(6, sigma=0.2)
    found = judged(*one_factor([*quiet, *loud]))["part=5"]
    assert found.verdict == "cannot tell" and found.needs is not None and found.needs > 100


def test_equal_spreads_are_pooled() -> None:
    assert not seed_noise(one_factor(normal(5, 5, 5, 5))[0]).unequal


def test_many_contexts_are_a_t_test_over_the_contexts() -> None:
    rng = np.random.default_rng(1)
    cells = {(o, a, b): float(rng.normal(0, 0.01)) for o in range(2) for a in range(3) for b in range(3)}
    frame, factors = crossed({"part": 2, "a": 3, "b": 3}, cells)
    found = judged(frame, factors)
    d = np.array([cells[1, a, b] - cells[0, a, b] for a in range(3) for b in range(3)])
    low, high = stats.ttest_1samp(d, 0).confidence_interval(sidak(0.95, 5))
    part = found["part=1"]
    assert part.error == CONTEXTS and part.contexts == 9
    assert (part.low, part.high) == pytest.approx((low, high))
    assert part.won == (d < 0).sum()


def test_two_contexts_must_agree() -> None:
    """The interval reaches over both contexts."""
    agree = crossed({"part": 2, "a": 2}, {(1, 0): 0.1, (1, 1): 0.3}, 0.005, 4)
    found = judged(*agree)["part=1"]
    assert found.verdict == "worse" and found.contexts == 2
    assert found.low < 0.095 and found.high > 0.295
    differ = crossed({"part": 2, "a": 2}, {(1, 0): 0.1, (1, 1): -0.3}, 0.005, 4)
    assert judged(*differ)["part=1"].verdict == "cannot tell"


def test_a_sign_that_turns_with_another_factor_has_no_average() -> None:
    loss = {(1, a, b): (0.05 if a < 2 else -0.05) for a in range(4) for b in range(4)}
    found = judged(*crossed({"part": 2, "pos": 4, "norm": 4}, loss, 0.005))["part=1"]
    assert found.verdict == "depends on pos"
    assert np.isnan(found.value) and found.won == 8 and found.contexts == 16
    assert [part.verdict for part in found.parts] == ["worse", "worse", "better", "better"]
    assert [part.won for part in found.parts] == [0, 0, 4, 4]


def test_one_option_among_options_that_do_not_turn() -> None:
    found = judged(*crossed({"part": 2, "pos": 4, "norm": 4}, {}, 0.005))
    assert {d.verdict for d in found.values()} <= {"same", "cannot tell"}
    assert not any(d.parts for d in found.values())


def test_without_replicates_one_context_has_no_interval() -> None:
    found = judged(*one_factor(normal(1, 1, 1, shift=0.5)))["part=1"]
    assert found.error == NOTHING and np.isnan(found.low) and found.verdict == "cannot tell"


def test_replicates_with_equal_losses_measure_no_noise() -> None:
    frame, factors = one_factor([[1.8] * 3, [1.9] * 3])
    assert seed_noise(frame).sigma is None
    assert judged(frame, factors)["part=1"].verdict == "cannot tell"


def test_an_option_that_meets_its_baseline_nowhere_has_no_difference() -> None:
    rows = [({"a": str(i), "b": str(i)}, seed, 1.8 + 0.01 * seed) for i in range(2) for seed in range(3)]
    frame = frame_of(rows)
    _, factors = crossed({"a": 2, "b": 2}, {})
    found = judged(frame, factors)["a=1"]
    assert found.contexts == 0 and np.isnan(found.value) and found.verdict == "cannot tell"


def test_the_noise_is_pooled_within_cells() -> None:
    samples = normal(4, 2, 5, shift=0.3)
    frame, _ = one_factor(samples)
    noise = seed_noise(frame)
    squares = sum(((np.array(s) - np.mean(s)) ** 2).sum() for s in samples)
    assert not noise.paired and noise.df == 8
    assert noise.sigma == pytest.approx(np.sqrt(squares / 8))
    low, high = noise.interval()
    chi = stats.chi2(8)
    assert (low, high) == pytest.approx(
        (np.sqrt(squares / chi.ppf(0.975)), np.sqrt(squares / chi.ppf(0.025)))
    )


def test_the_cell_of_a_run_decides_not_its_place() -> None:
    frame, factors = one_factor(normal(3, 3, 3, shift=0.02))
    mixed = frame.sample(frac=1, random_state=3)
    assert set(mixed) == {"part", "seed", LOSS, CELL}
    one, other = judged(frame, factors), judged(mixed, factors)
    for key in one:
        assert one[key].value == pytest.approx(other[key].value)
        assert one[key].low == pytest.approx(other[key].low)
