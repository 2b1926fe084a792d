"""Noise, means and odd designs against known truth and computations of their own in plain NumPy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from modgpt.compare.sentences import describe
from modgpt.compare.statistics import analyse
from tests.compare.in_memory import SMALL, dropped, dummies, effect, lstsq, results_of
from tests.compare.synthetic import DEFAULT, EFFECTS, OPTIONS, grid, losses, one_at_a_time


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_sigma_is_the_residual_of_cells_and_seeds(share: float) -> None:
    runs = dropped(losses(grid(SMALL), shift=0.05), share)
    y = np.array([loss for *_, loss in runs])
    design, projection = lstsq(dummies(str(c) for c, *_ in runs), dummies(s for _, s, _ in runs))
    df = len(y) - np.linalg.matrix_rank(design)
    noise = analyse(results_of(runs)).noise
    assert noise.blocked and noise.df == df
    assert noise.sigma == pytest.approx(np.sqrt(((y - projection @ y) ** 2).sum() / df))
    cells = pd.Series(y).groupby([str(c) for c, *_ in runs])
    within = np.sqrt((cells.var().fillna(0) * (cells.size() - 1)).sum() / (cells.size() - 1).sum())
    assert noise.within == pytest.approx(within)


def test_sigma_finds_the_noise_and_leaves_the_shift_of_the_seeds_out() -> None:
    noise = analyse(results_of(losses(grid(), noise=0.01, shift=0.1))).noise
    assert noise.sigma == pytest.approx(0.01, rel=0.15)
    assert noise.within is not None and noise.within > 0.03


def test_sigma_is_not_the_misfit_of_the_additive_model() -> None:
    runs = [
        (c, s, loss + (0.5 if c["attention"] == "linear" and c["pos"] == "alibi" else 0.0))
        for c, s, loss in losses(grid(SMALL), noise=0.01)
    ]
    assert analyse(results_of(runs)).noise.sigma == pytest.approx(0.01, rel=0.5)


def test_the_means_of_cells_have_t_intervals() -> None:
    runs = losses(grid(SMALL), seeds=range(4))
    table = analyse(results_of(runs)).cells
    for _, cell in table.iterrows():
        own = [x for c, _, x in runs if all(c[g] == cell[g] for g in SMALL)]
        half = stats.t.ppf(0.975, 3) * np.std(own, ddof=1) / 2
        assert (cell["mean"], cell["low"], cell["high"]) == pytest.approx(
            (np.mean(own), np.mean(own) - half, np.mean(own) + half)
        )
    assert list(table["mean"]) == sorted(table["mean"])


def test_the_noise_floor_is_the_half_width_of_a_difference_of_two_means() -> None:
    noise = analyse(results_of(losses(grid(SMALL)))).noise
    assert noise.sigma is not None and noise.seeds == 3
    assert noise.floor == pytest.approx(stats.t.ppf(0.975, noise.df) * noise.sigma * np.sqrt(2 / 3))


def test_without_replicates_everything_is_descriptive() -> None:
    results = results_of(losses(grid(), seeds=[1]))
    found = analyse(results)
    assert found.noise.sigma is None and np.isnan(found.noise.floor)
    assert found.effects["deviation"].notna().all()
    for column in (
        "deviation_p",
        "deviation_low",
        "difference_p",
        "difference_high",
        "difference_p_holm",
    ):
        assert found.effects[column].isna().all()
    assert found.interactions["p"].isna().all()
    assert not found.cells["tie"].any() and found.cells["low"].isna().all()
    words = describe(results, found)
    assert "descriptive" in words.noise and "p-value" not in words.meaning


def test_the_same_seed_again_is_no_replicate() -> None:
    runs = losses(grid(SMALL), seeds=[1])
    again = [(c, s, x + 0.1) for c, s, x in runs]
    found = analyse(results_of([*runs, *again]))
    assert found.noise.sigma is None and found.repeated == len(runs)
    assert found.cells["mean"].min() == pytest.approx(min(x for *_, x in again))  # the later run counts


def test_one_choice_at_a_time() -> None:
    results = results_of(losses(one_at_a_time(), noise=0.001))
    found = analyse(results)
    for (group, option), truth in EFFECTS.items():
        row = effect(found, group, option)
        assert row["difference"] == pytest.approx(truth, abs=0.005) and row["pairs"] == 3
        spread = row["deviation"] - effect(found, group, OPTIONS[group][0])["deviation"]
        assert spread == pytest.approx(row["difference"])  # the additive model is exact here
    assert found.interactions["p"].isna().all() and (found.interactions["df"] == 0).all()
    assert "One choice at a time" in describe(results, found).meaning


def test_a_single_group() -> None:
    found = analyse(results_of(losses(grid({"ffn": OPTIONS["ffn"]}))))
    assert list(found.effects["factor"]) == ["ffn"] * 3 and found.interactions.empty and not found.maps
    assert effect(found, "ffn", "standard")["verdict"] == "worse"


@pytest.mark.parametrize("seeds", [[1], [1, 2, 3]])
def test_a_single_combination(seeds: list[int]) -> None:
    results = results_of(losses([DEFAULT], seeds))
    found = analyse(results)
    assert found.effects.empty and len(found.cells) == 1
    assert (found.noise.sigma is None) == (len(seeds) == 1)
    assert describe(results, found).paragraphs


def test_no_finished_run() -> None:
    results = results_of(losses(grid()), status="failed")
    found = analyse(results)
    assert found.cells.empty and found.effects.empty and found.interactions.empty
    assert "nothing to compare" in describe(results, found).cautions[0]


def test_seeds_of_their_own_for_every_option_do_not_take_the_effects_out() -> None:
    cells = grid({"ffn": OPTIONS["ffn"]})
    runs = [run for i, c in enumerate(cells) for run in losses([c], range(10 * i, 10 * i + 4), rng=i)]
    found = analyse(results_of(runs))
    assert not found.noise.blocked and found.noise.df == 9
    row = effect(found, "ffn", "standard")
    assert np.isfinite(row["deviation_p"]) and row["verdict"] == "no pair"


def test_seeds_that_belong_to_one_option_each_are_no_blocks() -> None:
    norms = OPTIONS["norm"][:2]
    halves = [grid({"ffn": (ffn,), "norm": norms}) for ffn in ("swiglu", "standard")]
    runs = losses(halves[0], [1, 2]) + losses(halves[1], [3, 4])
    found = analyse(results_of(runs))
    assert not found.noise.blocked and found.noise.df == 4
    assert effect(found, "ffn", "standard")["deviation"] == pytest.approx(0.035, abs=0.02)


def test_factors_that_go_together_are_not_told_apart() -> None:
    runs = [({**c, "norm2": c["norm"]}, s, x) for c, s, x in losses(grid({"norm": OPTIONS["norm"]}))]
    results = results_of(runs)
    found = analyse(results)
    assert found.effects["deviation"].isna().all()
    assert any("cannot separate" in caution for caution in describe(results, found).cautions)


def test_a_search_over_many_values_has_no_main_effect_but_tells_cells_apart() -> None:
    runs = [
        ({**c, "optimizer.lr": f"{i}e-4"}, 1, x)
        for i, (c, _, x) in enumerate(losses(grid(), seeds=[1])[:40])
    ]
    results = results_of(runs)
    found = analyse(results)
    assert "optimizer.lr" not in set(found.effects["factor"]) and len(found.cells) == 40
    assert any("optimizer.lr takes 40 values" in c for c in describe(results, found).cautions)


def test_replicates_without_scatter_tell_nothing_of_the_noise() -> None:
    found = analyse(results_of(losses(grid(SMALL), noise=0.0)))
    assert found.noise.sigma is None and found.effects["difference_p"].isna().all()
