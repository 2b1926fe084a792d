"""Figures of an evaluation: loss by length, and by position.

Runs that differ in their seed alone are one line, their mean, with a 95 % t interval.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from math import ceil
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from modgpt.compare.style import COLOURS
from modgpt.inference.evaluation.evaluate import Evaluation
from modgpt.inference.evaluation.tables import NOT_APPLICABLE, grouped, mean_and_interval

BINS_PER_OCTAVE = 4  # of positions; the curves show the mean of each bin


def draw_by_length(evaluations: Sequence[Evaluation]) -> Figure:
    """Draw the loss against the length: a line per group, dotted at the length it was trained with."""
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
    ax.set_ylabel("loss, nats per token")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


def draw_by_position(evaluations: Sequence[Evaluation]) -> Figure:
    """Draw the loss against the position in the window: a panel per length, means over bins."""
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
        ax.set_ylabel("loss, nats per token")
    axes.flat[len(lengths) - 1].legend(fontsize=7)
    return figure


def binned(e: Evaluation) -> tuple[list[float], list[float]]:
    """The geometric middle of each bin of positions, and the mean loss of its targets."""
    rows = np.array(e.by_position())  # (n,3): position, targets, loss
    bins = np.floor(np.log2(rows[:, 0]) * BINS_PER_OCTAVE)
    middles, means = [], []
    for number in np.unique(bins):
        positions, targets, losses = rows[bins == number].T
        middles.append(float(np.exp(np.log(positions).mean())))
        means.append(float(np.average(losses, weights=targets)))
    return middles, means


def logarithmic(ax: Any, lengths: Sequence[int]) -> None:
    """Make the axis logarithmic, with a tick at every length."""
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(set(lengths)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.minorticks_off()


def looks() -> Iterable[tuple[str, str]]:
    """Colour and style of every line: the palette solid, then dashed, then dash-dotted."""
    return ((colour, style) for style in itertools.cycle(("-", "--", "-.")) for colour in COLOURS)
