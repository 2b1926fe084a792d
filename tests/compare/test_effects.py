"""Main effects and interactions against known truth and computations of their own in plain NumPy."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable

import numpy as np
import pandas as pd
import pytest
from modgpt.compare.noise import seed_blocks, seed_noise
from scipy import stats

from modgpt.compare.effects import main_effects
from modgpt.compare.interactions import interaction_table
from modgpt.compare.statistics import Statistics, analyse
from tests.compare.in_memory import SMALL, dropped, dummies, effect, lstsq, results_of
from tests.compare.synthetic import DEFAULT, EFFECTS, OPTIONS, grid, losses


def test_deviations_in_a_complete_grid_are_those_of_the_marginal_means() -> None:
    runs = losses(grid(), shift=0.02)
    found = analyse(results_of(runs))
    grand = np.mean([x for *_, x in runs])
    for group, options in OPTIONS.items():
        for option in options:
            own = [x for c, _, x in runs if c[group] == option]
            row = effect(found, group, option)
            assert row["deviation"] == pytest.approx(np.mean(own) - grand)
            assert found.noise.sigma is not None
            variance = (1 / len(own)) * (1 - 1 / len(options))
            half = stats.t.ppf(0.975, found.noise.df) * found.noise.sigma * np.sqrt(variance)
            assert row["deviation_high"] - row["deviation"] == pytest.approx(half)
            z = abs(row["deviation"]) / (found.noise.sigma * np.sqrt(variance))
            assert row["deviation_p"] == pytest.approx(2 * stats.t.sf(z, found.noise.df), abs=1e-12)


def test_deviations_of_incomplete_data_come_from_the_additive_model() -> None:
    runs = dropped(losses(grid(SMALL), shift=0.02), 0.35)
    found = analyse(results_of(runs))
    y = np.array([x for *_, x in runs])
    blocks = [[c["attention"] for c, *_ in runs], [c["pos"] for c, *_ in runs], [s for _, s, _ in runs]]
    design, _ = lstsq(*(dummies(b) for b in blocks))  # of unique contrasts, not of full rank
    beta = np.linalg.pinv(design) @ y
    names = [(i, level) for i, b in enumerate(blocks) for level in dict.fromkeys(b)]
    for i, group in enumerate(SMALL):
        own = {level: b for (j, level), b in zip(names, beta, strict=True) if j == i}
        for option in SMALL[group]:
            expected = own[option] - np.mean(list(own.values()))
            assert effect(found, group, option)["deviation"] == pytest.approx(expected)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_differences_are_means_over_pairs_alike_in_all_else(share: float) -> None:
    runs = dropped(losses(grid(), shift=0.05), share)
    found = analyse(results_of(runs))
    by = {(*c.values(), s): x for c, s, x in runs}
    for group, (base, *options) in OPTIONS.items():
        at = list(DEFAULT).index(group)
        for option in options:
            pairs = [
                x - by[other]
                for key, x in by.items()
                if key[at] == option and (other := (*key[:at], base, *key[at + 1 :])) in by
            ]
            row = effect(found, group, option)
            assert row["pairs"] == len(pairs)
            assert row["difference"] == pytest.approx(np.mean(pairs))
            assert found.noise.sigma is not None
            error = found.noise.sigma * np.sqrt(2 / len(pairs))
            half = stats.t.ppf(0.975, found.noise.df) * error
            assert row["difference"] - row["difference_low"] == pytest.approx(half)
            p = 2 * stats.t.sf(abs(np.mean(pairs)) / error, found.noise.df)
            assert row["difference_p"] == pytest.approx(p, abs=1e-12)


def test_holm_is_over_all_tests_of_the_table() -> None:
    table = analyse(results_of(losses(grid(SMALL), noise=0.1))).effects
    p = np.concatenate([table["deviation_p"], table["difference_p"].dropna()])
    order = np.argsort(p)
    stepped = np.maximum.accumulate(np.minimum(1, p[order] * np.arange(len(p), 0, -1)))
    expected = np.empty_like(p)
    expected[order] = stepped
    found = np.concatenate([table["deviation_p_holm"], table["difference_p_holm"].dropna()])
    np.testing.assert_allclose(found, expected)
    assert len(p) == 7 + 5


def simulated(
    count: int, seeds: Iterable[int] = (1, 2, 3), share: float = 0.0, **truth: object
) -> list[Statistics]:
    options = {"attention": OPTIONS["attention"], "norm": OPTIONS["norm"]}
    gc.freeze()  # statsmodels collects garbage with every correction: only what is new
    return [
        analyse(results_of(dropped(losses(grid(options), seeds, rng=i, **truth), share, rng=i)))  # type: ignore[arg-type]
        for i in range(count)
    ]


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_under_the_null_a_table_claims_something_in_at_most_five_per_cent(share: float) -> None:
    tables = simulated(80, effects={}, noise=0.01, shift=0.02, share=share)
    adjusted = ["deviation_p_holm", "difference_p_holm"]
    claims = [(table.effects[adjusted] < 0.05).any(axis=None) for table in tables]
    assert np.mean(claims) <= 0.1  # 5 % and two standard errors
    single = [p for t in tables for p in t.effects["difference_p"].dropna()]
    assert np.mean(np.array(single) < 0.05) == pytest.approx(0.05, abs=0.025)


def test_p_values_of_absent_interactions_are_uniform() -> None:
    found = []
    for i in range(400):
        cells = grid({"attention": OPTIONS["attention"], "norm": OPTIONS["norm"]})
        results = results_of(losses(cells, effects={}, noise=0.01, shift=0.02, rng=i))
        frame = results.table.assign(cell=results.table.groupby(["attention", "norm"]).ngroup())
        blocks, blocked = seed_blocks(frame, main_effects(frame, results.factors))
        noise = seed_noise(frame, blocked)
        found.append(interaction_table(frame, results.factors, blocks, noise)["p"].iloc[0])
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.025)


def test_intervals_cover_the_truth() -> None:
    covered = []
    for found in simulated(60, effects=EFFECTS, noise=0.02, shift=0.02, share=0.2):
        for _, row in found.effects.dropna(subset="difference").iterrows():
            truth = EFFECTS.get((row["factor"], row["option"]), 0.0)
            covered.append(row["difference_low"] <= truth <= row["difference_high"])
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_real_effects_are_found_and_absent_ones_are_ties() -> None:
    found = analyse(results_of(losses(grid(), noise=0.01, shift=0.01)))
    for (group, option), truth in EFFECTS.items():
        row = effect(found, group, option)
        assert row["difference"] == pytest.approx(truth, abs=0.01)
        assert row["verdict"] == ("worse" if truth else "tie")
    assert found.cells["tie"].iloc[1:3].all() and not found.cells["tie"].iloc[-1]


def test_an_interaction_is_the_sum_of_squares_of_its_products_against_the_seed_noise() -> None:
    runs = losses(grid(SMALL), noise=0.02)
    found = analyse(results_of(runs))
    table = pd.DataFrame([{**c, "y": y} for c, _, y in runs])
    cell = table.groupby(list(SMALL))["y"].mean().unstack()
    additive = cell.mean(axis=1).to_numpy()[:, None] + cell.mean().to_numpy() - cell.to_numpy().mean()
    ss, df = 3 * ((cell.to_numpy() - additive) ** 2).sum(), 2 * 3
    row = found.interactions.iloc[0]
    assert found.noise.sigma is not None
    assert row["df"] == df and row["F"] == pytest.approx(ss / df / found.noise.sigma**2)
    assert row["p"] == pytest.approx(stats.f.sf(row["F"], df, found.noise.df))


def test_a_real_interaction_is_found_among_absent_ones() -> None:
    runs = [
        (c, s, x - (0.06 if c["attention"] == "linear" and c["pos"] == "alibi" else 0))
        for c, s, x in losses(grid(), noise=0.01, rng=1)
    ]
    table = analyse(results_of(runs)).interactions.set_index(["a", "b"])["p_holm"]
    assert table.pop(("attention", "pos")) < 1e-6
    assert (table > 0.05).all() and len(table) == 5


def test_heat_maps_hold_the_means_and_counts_of_every_pair() -> None:
    runs = dropped(losses(grid()), 0.5)
    maps = analyse(results_of(runs)).maps
    assert set(maps) == set(itertools.combinations(OPTIONS, 2))
    mean, count = maps["ffn", "pos"]
    own = [x for c, _, x in runs if c["ffn"] == "moe" and c["pos"] == "alibi"]
    assert mean.loc["moe", "alibi"] == pytest.approx(np.mean(own))
    assert count.loc["moe", "alibi"] == len(own)
