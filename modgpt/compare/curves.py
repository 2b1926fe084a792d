"""What a run logged on its way: losses and expert load against steps."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from modgpt.compare.factors import natural

LOAD = "expert_load/"
Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Curves:
    """(step, value) pairs of a run, in the order of the steps.

    Attributes:
        val: full-validation loss.
        train: loss of single training batches.
        load: per expert, in the experts' order, its share of the tokens.
        tokens_per_second: of single logging intervals.
    """

    val: Points = field(default_factory=list)
    train: Points = field(default_factory=list)
    load: dict[str, Points] = field(default_factory=dict)
    tokens_per_second: Points = field(default_factory=list)


def read_curves(folder: Path) -> Curves:
    """The curves in a run's `metrics.csv`; empty where nothing was logged.

    A row that a running job has written only half of is left out.
    """
    curves = Curves()
    try:
        file = (folder / "metrics.csv").open(newline="", encoding="utf-8")
    except OSError:
        return curves
    with file:
        rows = csv.reader(file)
        header = next(rows, [])
        if "step" not in header:
            return curves
        experts = sorted((h.removeprefix(LOAD) for h in header if h.startswith(LOAD)), key=natural)
        curves.load.update({expert: [] for expert in experts})
        targets = {
            "val/loss": curves.val,
            "train/loss": curves.train,
            "tokens_per_second": curves.tokens_per_second,
        } | {LOAD + expert: points for expert, points in curves.load.items()}
        wanted = [(i, targets[name]) for i, name in enumerate(header) if name in targets]
        at = header.index("step")
        for row in rows:
            if len(row) != len(header):
                continue
            try:
                step = int(row[at])
                values = [(points, float(row[i])) for i, points in wanted if row[i]]
            except ValueError:
                continue
            for points, value in values:
                if isfinite(value):
                    points.append((step, value))
    return curves


def thinned(points: Points, most: int) -> Points:
    """At most so many points, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]
