"""The figures of a comparison: drawn from its numbers, each only where there is something to show."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from modgpt.compare.best import best_of
from modgpt.compare.figures import FORMATS, curves, figures, main_effects, pareto, write_figures
from modgpt.compare.load import load_results
from modgpt.compare.statistics import analyse
from tests.compare.synthetic import DEFAULT, write_run, write_sweep
from tests.compare.synthetic import main as make


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    make(str(folder), "216")
    return folder


@pytest.mark.parametrize("form", FORMATS)
def test_every_figure_is_written(sweep: Path, tmp_path: Path, form: str) -> None:
    results = load_results([sweep])
    written = write_figures(results, analyse(results), tmp_path, form)
    assert sorted(p.name for p in written) == [
        f"{name}.{form}" for name in ("costs", "curves", "main_effects", "pairs")
    ]
    if form == "png":
        for path in written:
            pixels = np.asarray(Image.open(path).convert("L"))
            assert pixels.shape[1] > 800 and (pixels < 128).mean() > 0.001, f"{path.name} is empty"


def test_the_effects_drawn_are_those_of_the_table(sweep: Path) -> None:
    results = load_results([sweep])
    statistics = analyse(results)
    figure = main_effects(statistics, statistics.factors)
    (ax,) = figure.axes
    drawn = {float(np.ravel(line.get_xdata())[0]) for line in ax.lines if line.get_marker() == "o"}
    plt.close(figure)
    assert drawn == set(statistics.effects["difference"].dropna())


def test_curves_compare_runs_that_are_otherwise_alike(tmp_path: Path) -> None:
    """A run of the baseline with a bad position must not make the baseline's curve worse."""
    bad = DEFAULT | {"pos": "sinusoidal"}
    runs = [(DEFAULT, 1, 1.7), (DEFAULT | {"ffn": "moe"}, 1, 1.8), (bad, 1, 9.0)]
    results = load_results([write_sweep(tmp_path, runs, curves=True)])
    statistics = analyse(results)
    figure = curves(results, statistics.factors)
    last = {}
    for ax in figure.axes:
        for line in ax.lines:
            last[ax.get_title(), line.get_label()] = float(np.ravel(line.get_ydata())[-1])
    plt.close(figure)
    assert last["ffn", "swiglu"] == pytest.approx(1.7) and last["ffn", "moe"] == pytest.approx(1.8)
    assert last["pos", "rope"] == pytest.approx(1.7) and last["pos", "sinusoidal"] == pytest.approx(9)


def test_one_run_has_nothing_to_compare(sweep: Path) -> None:
    results = load_results([next(sweep.iterdir())])
    assert not list(figures(results, analyse(results)))


@pytest.mark.parametrize(("more_is_better", "front"), [(False, [1, 0, 3]), (True, [4, 3])])
def test_the_pareto_front(more_is_better: bool, front: list[int]) -> None:
    cost = np.array([2.0, 1.0, 3.0, 4.0, 5.0, np.nan])
    loss = np.array([0.8, 0.9, 0.85, 0.7, 0.75, 0.1])
    assert pareto(cost, loss, more_is_better) == front


def test_accuracies_are_means_of_the_runs(tmp_path: Path) -> None:
    for attention, shift in (("flash", 0.0), ("linear", 0.4)):
        for width, accuracy in (("32", 0.5), ("128", 0.9)):
            for seed in (1, 2):
                write_run(
                    tmp_path, DEFAULT | {"attention": attention}, seed, 1.0,
                    overrides=[f"model.d_model={width}"],
                    final_val_accuracy=accuracy - shift + 0.02 * (seed - 1.5),
                )  # fmt: skip
    results = load_results([tmp_path])
    drawn = dict(figures(results, analyse(results)))
    (ax,) = drawn["accuracy"].axes
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert [t.get_text() for t in ax.get_xticklabels()] == ["32", "128"]
    assert lines["flash"] == pytest.approx([0.5, 0.9]) and lines["linear"] == pytest.approx([0.1, 0.5])
    plt.close("all")


def test_accuracies_have_a_panel_per_level_of_a_second_number(tmp_path: Path) -> None:
    """Here of the best rate alone, as asked for: the others are behind with every seed."""
    wanted = {("32", "8"): 0.9, ("32", "16"): 0.4, ("32", "24"): 0.2,
              ("64", "8"): 1.0, ("64", "16"): 0.8, ("64", "24"): 0.7}  # fmt: skip
    for (width, length), accuracy in wanted.items():
        for attention, shift in (("flash", 0.0), ("linear", 0.1)):
            for rate, behind in (("0.005", 0.1), ("0.01", 0.05), ("0.02", 0.0)):
                for seed in (1, 2):
                    write_run(
                        tmp_path, DEFAULT | {"attention": attention}, seed, 1.0 + behind,
                        overrides=[f"model.d_model={width}", f"model.block_size={length}",
                                   f"optimizer.lr={rate}"],
                        final_val_accuracy=accuracy - shift - behind + 0.02 * (seed - 1.5),
                    )  # fmt: skip
    everything = load_results([tmp_path])
    untuned = dict(figures(everything, analyse(everything)))["accuracy"]
    titles = [ax.get_title() for ax in untuned.axes]
    assert titles == ["model.d_model = 32", "model.d_model = 64"], "not a panel per learning rate"
    results = best_of(everything, ["optimizer.lr"])
    drawn = dict(figures(results, analyse(results)))["accuracy"]
    for ax, width in zip(drawn.axes, ("32", "64"), strict=True):
        assert ax.get_title() == f"model.d_model = {width}" and ax.get_xlabel() == "model.block_size"
        lines = {line.get_label(): line.get_ydata() for line in ax.lines}
        mine = [wanted[width, length] for length in ("8", "16", "24")]
        assert lines["flash"] == pytest.approx(mine)
        assert lines["linear"] == pytest.approx([accuracy - 0.1 for accuracy in mine])
    plt.close("all")
