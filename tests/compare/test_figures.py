"""The figures of a comparison: drawn from its numbers, each only where there is something to show."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vl_convert
from PIL import Image

from modgpt.compare.analysis import Statistics, analyse
from modgpt.compare.best import best_of
from modgpt.compare.curves import read_curves
from modgpt.compare.figures.costs import cost_values, pareto
from modgpt.compare.figures.curves import mean_curves, run_curves
from modgpt.compare.figures.drawn import FORMATS, figures, rendered
from modgpt.compare.figures.effects import effect_lines
from modgpt.compare.figures.experts import final_load, load_curves
from modgpt.compare.figures.figure import Figure
from modgpt.compare.load import Results, load_results
from modgpt.compare.style import DARK, LIGHT
from tests.compare.synthetic import DEFAULT, losses, write_run, write_sweep
from tests.compare.synthetic import main as make


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    make(str(folder), "216")
    return folder


def drawn(results: Results, statistics: Statistics | None = None) -> dict[str, Figure]:
    """The figures of some results, by name."""
    curves = {path: read_curves(Path(path)) for path in results.table["path"]}
    return {f.name: f for f in figures(results, statistics or analyse(results), curves)}


def rows_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The largest table of data in a specification."""
    return max(spec["datasets"].values(), key=len)


@pytest.mark.parametrize("form", FORMATS)
def test_every_figure_can_be_written(sweep: Path, form: str) -> None:
    found = drawn(load_results([sweep]))
    assert set(found) == {"differences", "curves", "costs", "pairs"}
    for name, figure in found.items():
        content = rendered(figure, form)
        assert content.startswith({"png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF"}[form])
        if form == "png":
            pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
            assert pixels.shape[1] > 800 and (pixels < 128).mean() > 0.001, f"{name} is empty"


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_paper_and_page_show_the_same_panels(sweep: Path, theme: dict[str, Any]) -> None:
    """One description serves both: only size and colours differ."""
    for figure in drawn(load_results([sweep])).values():
        screen, paper = figure.on_screen(), figure.on_paper()
        assert len(screen) == len(figure.panels) == len(paper.get("concat", [paper]))
        for panel in screen:
            assert panel["width"] == "container" and panel["description"] == figure.caption
            assert "config" not in panel and vl_convert.vegalite_to_svg(panel | {"config": theme})
        datasets = {name for panel in screen for name in panel["datasets"]}
        assert datasets == set(paper["datasets"])


def test_the_plots_of_single_runs_are_valid() -> None:
    run = [{"run": 0, "name": "a", "level": "x", "x": x, "loss": 3 - x} for x in (1, 2)]
    load = [{"expert": "0", "step": s, "share": 1, "even": 1, "last": s == 2} for s in (1, 2)]
    for spec, name, values in (
        (run_curves(), "runs", run),
        (load_curves(), "load", load),
        (final_load(), "load", load),
    ):
        shown = spec | {"datasets": {name: values}, "width": 300}
        for param in shown.get("params", []):
            if param["name"] == "shown":
                param["value"] = [True]
        svg = vl_convert.vegalite_to_svg(shown)
        assert "role-mark" in svg and "aria-label" in svg


def test_the_effects_drawn_are_those_of_the_table(sweep: Path) -> None:
    statistics = analyse(load_results([sweep]))
    labels, heads, values = effect_lines(statistics)
    heads_drawn = [text for text, head in zip(labels, heads, strict=True) if head]
    assert heads_drawn == ["pos", "attention", "ffn", "norm"], "the factor that matters most comes first"
    found = {(v["factor"], v["option"]): v for v in values}
    for _, effect in statistics.effects.iterrows():
        value = found[effect["factor"], effect["option"]]
        assert value["verdict"] == effect["verdict"]
        assert labels[value["line"]].startswith(effect["option"])
        if effect["baseline"]:
            assert value["value"] == 0
        else:
            drawn_at = (value["value"], value["low"], value["high"])
            assert drawn_at == (effect["difference"], effect["low"], effect["high"])
            assert value["open"] == (effect["verdict"] in ("same", "cannot tell"))


def test_curves_compare_runs_that_are_otherwise_alike(tmp_path: Path) -> None:
    """A run of the baseline with a bad position must not make the baseline's curve worse."""
    bad = DEFAULT | {"pos": "sinusoidal"}
    runs = [(DEFAULT, 1, 1.7), (DEFAULT | {"ffn": "moe"}, 1, 1.8), (bad, 1, 9.0)]
    results = load_results([write_sweep(tmp_path, runs, curves=True)])
    factors = analyse(results).factors
    curves = {path: read_curves(Path(path)) for path in results.table["path"]}
    last = {
        (factor.name, value["option"]): value["loss"]
        for factor in factors
        for value in mean_curves(results.finished, curves, factors, factor)
    }
    assert last["ffn", "swiglu"] == pytest.approx(1.7) and last["ffn", "moe"] == pytest.approx(1.8)
    assert last["pos", "rope"] == pytest.approx(1.7) and last["pos", "sinusoidal"] == pytest.approx(9)


def test_one_run_has_its_cost_alone(sweep: Path) -> None:
    assert set(drawn(load_results([next(sweep.iterdir())]))) == {"costs"}


@pytest.mark.parametrize(("more_is_better", "front"), [(False, [1, 0, 3]), (True, [4, 3])])
def test_the_pareto_front(more_is_better: bool, front: list[int]) -> None:
    cost = np.array([2.0, 1.0, 3.0, 4.0, 5.0, np.nan])
    loss = np.array([0.8, 0.9, 0.85, 0.7, 0.75, 0.1])
    assert pareto(cost, loss, more_is_better) == front


def test_the_front_drawn_is_that_of_loss_and_cost(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number, (choices, seed, loss) in enumerate(losses([DEFAULT], range(30), noise=0.1)):
        write_run(tmp_path, choices, seed, loss, overrides=[f"model.d_model={number}"],
                  tokens_per_second=random.random(), flops_per_token=random.random())  # fmt: skip
    statistics = analyse(load_results([tmp_path]))
    for cost, sign in (("flops_per_token", 1), ("tokens_per_second", -1)):
        values = cost_values(statistics.cells, statistics.factors, cost)
        points = {(sign * v["cost"], v["loss"]): v["front"] for v in values}
        beaten = {p for p in points for q in points if q != p and q[0] <= p[0] and q[1] <= p[1]}
        assert len(points) == 30 and {p for p, front in points.items() if front} == set(points) - beaten


def accuracies(panel: dict[str, Any]) -> dict[str, list[float]]:
    """The mean accuracies of each option, along the x axis."""
    levels = panel["layer"][0]["encoding"]["x"]["scale"]["domain"]
    rows = rows_of(panel)
    return {
        option: [
            float(np.mean([r["accuracy"] for r in rows if r["option"] == option and r["at"] == level]))
            for level in levels
        ]
        for option in {row["option"] for row in rows}
    }


def test_accuracies_are_means_of_the_runs(tmp_path: Path) -> None:
    for attention, shift in (("flash", 0.0), ("linear", 0.4)):
        for width, accuracy in (("32", 0.5), ("128", 0.9)):
            for seed in (1, 2):
                write_run(
                    tmp_path, DEFAULT | {"attention": attention}, seed, 1.0,
                    overrides=[f"model.d_model={width}"],
                    final_val_accuracy=accuracy - shift + 0.02 * (seed - 1.5),
                )  # fmt: skip
    (panel,) = drawn(load_results([tmp_path]))["accuracy"].on_screen()
    assert panel["layer"][0]["encoding"]["x"]["scale"]["domain"] == ["32", "128"]
    assert panel["layer"][0]["encoding"]["y"]["aggregate"] == "mean"
    means = accuracies(panel)
    assert means["flash"] == pytest.approx([0.5, 0.9]) and means["linear"] == pytest.approx([0.1, 0.5])


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
    untuned = drawn(everything)["accuracy"].on_screen()
    titles = [panel["title"] for panel in untuned]
    assert titles == ["model.d_model = 32", "model.d_model = 64"], "not a panel per learning rate"
    results = best_of(everything, ["optimizer.lr"])
    for panel, width in zip(drawn(results)["accuracy"].on_screen(), ("32", "64"), strict=True):
        x = panel["layer"][0]["encoding"]["x"]
        assert panel["title"] == f"model.d_model = {width}" and x["title"] == "model.block_size"
        means = accuracies(panel)
        mine = [wanted[width, length] for length in ("8", "16", "24")]
        assert means["flash"] == pytest.approx(mine)
        assert means["linear"] == pytest.approx([accuracy - 0.1 for accuracy in mine])
