"""Figures for a paper or a README: main effects, loss curves, pairs of factors, cost, accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from modgpt.compare.curves import read_curves
from modgpt.compare.effects import COSTS
from modgpt.compare.factors import Factor, is_numeric
from modgpt.compare.load import ACCURACY, Results
from modgpt.compare.statistics import Statistics
from modgpt.runs.files import replaced

FORMATS = ("png", "svg", "pdf")
# Okabe and Ito's colours, which colour-blind readers can tell apart; the baseline is always black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASELINE = "#222222"
# Name and unit of every cost on its axis.
COST_AXES = {
    "active_parameters": ("active parameters, thousands", 1e3),
    "flops_per_token": ("forward MFLOPs per token", 1e6),
    "tokens_per_second": ("training tokens per second, thousands", 1e3),
    "peak_memory_bytes": ("peak memory, MiB", 2**20),
}
STYLE: Any = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "svg.hashsalt": "modgpt",  # the same runs give the same file
}


def write_figures(results: Results, statistics: Statistics, folder: Path, form: str) -> list[Path]:
    """Draw what the runs allow; returns the files.

    Args:
        results, statistics: of the comparison.
        folder: where to write.
        form: one of `FORMATS`.
    """
    written = []
    with plt.rc_context(STYLE):
        for name, figure in figures(results, statistics):
            path = folder / f"{name}.{form}"
            with replaced(path) as beside:
                figure.savefig(beside, format=form)
            plt.close(figure)
            written.append(path)
    return written


def figures(results: Results, statistics: Statistics) -> Iterator[tuple[str, Figure]]:
    """The figures there is something to show in, by the names of their files."""
    designed = [factor for factor in statistics.factors if factor.designed]
    if len(statistics.effects):
        yield "main_effects", main_effects(statistics, designed)
        yield "curves", curves(results, designed)
        yield "costs", costs(statistics, designed[0])
    numeric = [factor for factor in designed if is_numeric(factor)]
    if numeric and results.finished[ACCURACY].notna().any():
        yield "accuracy", accuracies(results, designed, numeric)
    crossed = statistics.interactions
    if len(crossed) and (crossed["df"] > 0).any():
        pairs = [(a, b) for a, b in zip(crossed["a"], crossed["b"], strict=True)]
        met = [pair for pair, df in zip(pairs, crossed["df"], strict=True) if df > 0]
        yield "pairs", heat_maps(statistics, met)


def main_effects(statistics: Statistics, factors: list[Factor]) -> Figure:
    """Paired difference of every option to its baseline, with its 95 % interval where there is one."""
    options = sum(len(factor.levels) for factor in factors)
    figure, ax = plt.subplots(figsize=(7, 1 + 0.27 * options + 0.15 * len(factors)))
    labels, y = [], 0.0
    for factor in factors:
        for option in factor.levels:
            labels.append((y, f"{factor.name}={option}"))
            if option == factor.baseline:
                ax.plot(0, y, "s", color=BASELINE, markersize=5)
            else:
                draw_effect(ax, statistics, factor.name, option, y)
            y += 1
        y += 0.6
    ax.axvline(0, color=BASELINE, linewidth=0.8)
    ax.set_yticks([at for at, _ in labels], [text for _, text in labels])
    ax.set_ylim(y - 0.2, -0.8)
    ax.grid(axis="y", visible=False)
    noise = statistics.noise
    bars = (
        "bars: 95 % intervals from the seed noise; hollow: tie"
        if noise.sigma
        else "no intervals: one seed"
    )
    # Below the whole figure: long names of keys leave the axes too narrow for it.
    figure.supxlabel(
        f"final validation loss against the baseline (black), nats; left is better\n{bars}",
        fontsize=ax.xaxis.label.get_fontsize(),
    )
    return figure


def draw_effect(ax: Axes, statistics: Statistics, factor: str, option: str, y: float) -> None:
    table = statistics.effects
    found = table[(table["factor"] == factor) & (table["option"] == option)]
    if found.empty or np.isnan(found.iloc[0]["difference"]):
        return
    effect = found.iloc[0]
    low, high = effect["difference_low"], effect["difference_high"]
    if not np.isnan(low):
        ax.plot([low, high], [y, y], color=COLOURS[0], linewidth=1.6)
    tie = effect["verdict"] == "tie"
    ax.plot(effect["difference"], y, "o", color=COLOURS[0], markersize=6,
            markerfacecolor="white" if tie else COLOURS[0])  # fmt: skip
    ax.annotate(f"{effect['difference']:+.3f}", (effect["difference"], y), xytext=(0, 5),
                textcoords="offset points", ha="center", fontsize=7.5, color="#555555")  # fmt: skip


def curves(results: Results, factors: list[Factor]) -> Figure:
    """Per factor the mean validation loss of each option against steps.

    The mean is over runs that differ in this factor alone: where another choice was not tried with every
    option, its runs would shift the mean of the options it was tried with.
    """
    columns = 2 if len(factors) == 4 else min(3, len(factors))
    rows = ceil(len(factors) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns, 2.7 * rows), sharey=True, squeeze=False
    )
    frame = results.finished
    names = [factor.name for factor in factors]
    points = {path: read_curves(Path(path)).val for path in frame["path"]}
    for ax, factor in zip(axes.flat, factors, strict=False):
        others = [frame[name] for name in (*names, "seed") if name != factor.name]
        tried = frame.groupby(others, dropna=False)[factor.name].transform("nunique")
        alike = frame[tried == len(factor.levels)]
        for number, option in enumerate(factor.levels):
            by_step: dict[int, list[float]] = {}
            for path in alike.loc[alike[factor.name] == option, "path"]:
                for step, loss in points[path]:
                    by_step.setdefault(step, []).append(loss)
            steps = sorted(by_step)
            colour = BASELINE if number == 0 else COLOURS[(number - 1) % len(COLOURS)]
            ax.plot(
                steps, [np.mean(by_step[s]) for s in steps], color=colour, label=option, linewidth=1.4
            )
        ax.set_title(factor.name)
        ax.set_xlabel("step")
        ax.legend(fontsize=8)
    for ax in axes.flat[len(factors) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("validation loss, nats")
    return figure


def costs(statistics: Statistics, colour_by: Factor) -> Figure:
    """Mean loss of every combination against what it costs, with the Pareto front."""
    cells = statistics.cells
    figure, axes = plt.subplots(2, 2, figsize=(7.5, 6), sharey=True)
    for ax, cost in zip(axes.flat, COSTS, strict=True):
        name, unit = COST_AXES[cost]
        price, loss = cells[cost].to_numpy() / unit, cells["mean"].to_numpy()
        for number, option in enumerate(colour_by.levels):
            mine = (cells[colour_by.name] == option).to_numpy()
            colour = BASELINE if number == 0 else COLOURS[(number - 1) % len(COLOURS)]
            ax.plot(price[mine], loss[mine], "o", color=colour, markersize=4, alpha=0.8,
                    label=f"{colour_by.name}={option}")  # fmt: skip
        front = pareto(price, loss, more_is_better=cost == "tokens_per_second")
        ax.plot(price[front], loss[front], color="#999999", linewidth=1, zorder=0)
        ax.set_xlabel(name)
    for ax in axes[:, 0]:
        ax.set_ylabel("final validation loss, nats")
    axes[0, 0].legend(fontsize=8)
    return figure


def pareto(cost: np.ndarray, loss: np.ndarray, more_is_better: bool) -> list[int]:
    """Indices of those that none is both cheaper and better than, the cheapest first."""
    order = np.lexsort((loss, -cost if more_is_better else cost))
    front, best = [], np.inf
    for index in order:
        if np.isfinite(cost[index]) and loss[index] < best:
            front.append(int(index))
            best = loss[index]
    return front


def heat_maps(statistics: Statistics, pairs: list[tuple[str, str]]) -> Figure:
    """Mean loss of every pair of options, over whatever else was chosen."""
    columns = min(3, len(pairs))
    rows = ceil(len(pairs) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.6 * columns, 2.7 * rows), squeeze=False)
    for ax, pair in zip(axes.flat, pairs, strict=False):
        mean, _ = statistics.maps[pair]
        values = mean.to_numpy()
        ax.imshow(values, cmap="YlOrRd", aspect="auto")
        middle = (np.nanmin(values) + np.nanmax(values)) / 2
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value > middle else BASELINE
                ax.text(j, i, f"{value:.3f}", ha="center", va="center", fontsize=8, color=colour)
        ax.set_xticks(range(len(mean.columns)), list(mean.columns), rotation=20, ha="right")
        ax.set_yticks(range(len(mean.index)), list(mean.index))
        ax.grid(visible=False)
        ax.set_title(f"{pair[0]} × {pair[1]}")
    for ax in axes.flat[len(pairs) :]:
        ax.set_visible(False)
    return figure


def accuracies(results: Results, factors: list[Factor], numeric: list[Factor]) -> Figure:
    """Accuracy against the numeric factor of most levels, a line per option of the first other factor.

    Each level of a second numeric factor has a panel of its own, of the model's rather than the
    optimizer's. Dots are runs, lines their means. The options stand a little apart, or those of the same
    accuracy would hide each other.
    """
    across, *rest = sorted(
        numeric, key=lambda factor: (factor.name.startswith("optimizer."), -len(factor.levels))
    )
    panels = [(rest[0].name, level) for level in sorted(rest[0].levels, key=float)] if rest else [None]
    others = [factor for factor in factors if factor not in numeric][:1]
    options = others[0].levels if others else [""]
    levels = sorted(across.levels, key=float)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(3.8 * len(panels) + 1, 3.2), sharey=True, squeeze=False
    )
    for ax, panel in zip(axes.flat, panels, strict=True):
        shown = results.finished
        if panel is not None:
            shown = shown[shown[panel[0]] == panel[1]]
            ax.set_title(f"{panel[0]} = {panel[1]}")
        for number, option in enumerate(options):
            mine = shown[shown[others[0].name] == option] if others else shown
            x = mine[across.name].map(levels.index)
            colour = BASELINE if number == 0 else COLOURS[(number - 1) % len(COLOURS)]
            apart = 0.04 * (number - (len(options) - 1) / 2)
            ax.plot(x + apart, mine[ACCURACY], "o", color=colour, markersize=3, alpha=0.4)
            means = mine[ACCURACY].groupby(x).mean()
            ax.plot(means.index + apart, means, "-", color=colour, linewidth=1.4, label=option)
        ax.set_xticks(range(len(levels)), levels)
        ax.set_xlabel(across.name)
        ax.set_ylim(-0.03, 1.03)
    axes[0, 0].set_ylabel("final validation accuracy")
    if others:
        figure.legend(*axes[0, -1].get_legend_handles_labels(), loc="outside right upper",
                      title=others[0].name, fontsize=8)  # fmt: skip
    return figure
