"""An evaluation by length for people: a table, two CSV files, two figures.

Runs that differ in their seed alone are one column and one line, their mean, with a 95 % t interval.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from modgpt.compare.noise import t_interval
from modgpt.compare.style import COLOURS, STYLE
from modgpt.inference.evaluation import Evaluation
from modgpt.runs.files import replaced

NOT_APPLICABLE = "not applicable"
BINS_PER_OCTAVE = 4  # of positions, over which the curves of a figure are averaged


def write_report(evaluations: Sequence[Evaluation], folder: Path) -> list[Path]:
    """Write `loss_by_length` and `loss_by_position`, each as CSV and PNG; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = {"loss_by_length": length_rows, "loss_by_position": position_rows}
    figures = {"loss_by_length": draw_by_length, "loss_by_position": draw_by_position}
    written = []
    for name, rows_of in tables.items():
        written.append(folder / f"{name}.csv")
        write_csv(rows_of(evaluations), written[-1])
    with plt.rc_context(STYLE):
        for name, draw in figures.items():
            figure = draw(evaluations)
            written.append(folder / f"{name}.png")
            with replaced(written[-1]) as beside:
                figure.savefig(beside, format="png")
            plt.close(figure)
    return written


def write_csv(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Rows with the same keys, numbers unrounded."""
    rows = list(rows)
    with replaced(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def length_rows(evaluations: Iterable[Evaluation]) -> Iterable[dict[str, Any]]:
    """A row per run and length; targets and loss are empty where a model cannot read so many tokens."""
    for e in evaluations:
        yield {
            "run": e.run,
            "trained_length": e.trained_length,
            "length": e.length,
            "stride": e.stride,
            "targets": e.targets if e.applicable else "",
            "loss": e.loss if e.applicable else "",
        }


def position_rows(evaluations: Iterable[Evaluation]) -> Iterable[dict[str, Any]]:
    """A row per run, length and position that has targets; one empty row where there can be none."""
    for e in evaluations:
        for position, targets, loss in e.by_position() or [("", "", "")]:
            yield {
                "run": e.run,
                "length": e.length,
                "stride": e.stride,
                "position": position,
                "targets": targets,
                "loss": loss,
            }


def length_table(evaluations: Sequence[Evaluation]) -> Table:
    """Lengths down, runs across; the length a run was trained with is marked."""
    groups = grouped(evaluations)
    slides = any(e.stride < e.length for e in evaluations)
    table = Table(title="validation loss by length of the window, nats", header_style="bold")
    table.add_column("length", justify="right")
    if slides:
        table.add_column("stride", justify="right")
    for name in groups:
        table.add_column(name, justify="right", overflow="fold")
    for length in dict.fromkeys(e.length for e in evaluations):
        row = [lengths[length] for lengths in groups.values()]
        stride = [f"{row[0][0].stride}"] if slides else []
        table.add_row(f"{length}", *stride, *map(loss_cell, row))
    captions = []
    if any(e.length == e.trained_length for e in evaluations):
        captions.append("* the length the run was trained with")
    if any(len(alike) > 1 for lengths in groups.values() for alike in lengths.values()):
        captions.append("± 95 % t interval over the seeds")
    table.caption = "; ".join(captions)
    return table


def loss_cell(alike: Sequence[Evaluation]) -> str:
    if not alike[0].applicable:
        return NOT_APPLICABLE
    mean, low, high = mean_and_interval(alike)
    mark = "*" if alike[0].length == alike[0].trained_length else " "
    return f"{mean:.4f}{f' ± {(high - low) / 2:.4f}' if len(alike) > 1 else ''}{mark}"


def mean_and_interval(alike: Sequence[Evaluation]) -> tuple[float, float, float]:
    """The mean loss and the ends of its interval, which for a single run are the loss itself."""
    losses = [e.loss for e in alike]
    if len(losses) == 1:
        return losses[0], losses[0], losses[0]
    return float(np.mean(losses)), *t_interval(losses)


def draw_by_length(evaluations: Sequence[Evaluation]) -> Figure:
    """Loss against length, a line per run, with a dotted line at the length it was trained with."""
    figure, ax = plt.subplots(figsize=(6.5, 4))
    for (colour, style), (name, lengths) in zip(looks(), grouped(evaluations).items(), strict=False):
        shown = {length: alike for length, alike in lengths.items() if alike[0].applicable}
        label = name
        if len(shown) < len(lengths):
            label += f" ({NOT_APPLICABLE} from {min(lengths.keys() - shown.keys())})"
        rows = [mean_and_interval(alike) for alike in shown.values()]
        mean, low, high = np.array(rows).reshape(-1, 3).T
        ax.plot(list(shown), mean, "o", linestyle=style, markersize=4, linewidth=1.4, color=colour,
                label=label)  # fmt: skip
        if (low < high).any():
            ax.fill_between(list(shown), low, high, color=colour, alpha=0.2, linewidth=0)
        trained = next(iter(lengths.values()))[0].trained_length
        ax.axvline(trained, color=colour, linestyle=":", linewidth=1)
    logarithmic(ax, [e.length for e in evaluations])
    ax.set_xlabel("length of the window, tokens (dotted: as trained)")
    ax.set_ylabel("validation loss, nats")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


def draw_by_position(evaluations: Sequence[Evaluation]) -> Figure:
    """Loss against the position in the window, a panel per length, averaged within bins of positions."""
    groups, lengths = grouped(evaluations), list(dict.fromkeys(e.length for e in evaluations))
    columns = min(3, len(lengths))
    rows = ceil(len(lengths) / columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns + 1, 2.8 * rows), sharey=True, squeeze=False
    )
    for ax, length in zip(axes.flat, lengths, strict=False):
        for (colour, style), (name, by_length) in zip(looks(), groups.items(), strict=False):
            alike = by_length[length]
            look = {"color": colour, "linestyle": style, "linewidth": 1.4}
            if alike[0].applicable:
                positions, losses = zip(*map(binned, alike), strict=True)
                ax.plot(positions[0], np.mean(losses, axis=0), label=name, **look)
                if alike[0].trained_length < length:
                    ax.axvline(alike[0].trained_length, color=colour, linestyle=":", linewidth=1)
            else:
                ax.plot([], [], label=f"{name} ({NOT_APPLICABLE})", **look)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_title(f"windows of {length}")
        ax.set_xlabel("position in the window")
    for ax in axes.flat[len(lengths) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.set_ylabel("validation loss, nats")
    axes.flat[len(lengths) - 1].legend(fontsize=7)
    return figure


def binned(e: Evaluation) -> tuple[list[float], list[float]]:
    """Middle of each bin of positions (geometric) and the mean loss of its targets."""
    rows = np.array(e.by_position())  # (n,3): position, targets, loss
    bins = np.floor(np.log2(rows[:, 0]) * BINS_PER_OCTAVE)
    middles, means = [], []
    for number in np.unique(bins):
        positions, targets, losses = rows[bins == number].T
        middles.append(float(np.exp(np.log(positions).mean())))
        means.append(float(np.average(losses, weights=targets)))
    return middles, means


def logarithmic(ax: Any, lengths: Sequence[int]) -> None:
    """An axis of doublings, with a tick at every length."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(set(lengths)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def grouped(evaluations: Iterable[Evaluation]) -> dict[str, dict[int, list[Evaluation]]]:
    """By what is alike but for the seed, and by length."""
    groups: dict[str, dict[int, list[Evaluation]]] = {}
    for e in evaluations:
        groups.setdefault(e.alike, {}).setdefault(e.length, []).append(e)
    return groups


def looks() -> Iterable[tuple[str, str]]:
    """Colour and style of every line: the palette, then again with other styles."""
    return ((colour, style) for style in itertools.cycle(("-", "--", "-.")) for colour in COLOURS)
