"""The curves that a run logged: losses and expert load against steps."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from modgpt.compare.factors import natural
from modgpt.text import visible

LOAD = "expert_load/"
MOST_STEPS = 10**15  # a step beyond this is a damaged number
Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Curves:
    """(step, value) pairs of a run, in the order of the steps.

    Attributes:
        val: validation loss, on the windows that every validation of the run reads.
        train: loss of single training batches.
        load: share of the tokens of each expert, in the order of the experts.
        tokens_per_second: of single logging intervals.
        problem: why the file could not be read; None if all is well.
    """

    val: Points = field(default_factory=list)
    train: Points = field(default_factory=list)
    load: dict[str, Points] = field(default_factory=dict)
    tokens_per_second: Points = field(default_factory=list)
    problem: str | None = None


def read_curves(folder: Path) -> Curves:
    """The curves in a run's `metrics.csv`; empty if nothing was logged.

    A row that a running job has written only half of is left out. A step that was logged twice, before
    and after a resume, counts as logged last.
    """
    path = folder / "metrics.csv"
    if not path.exists():
        return Curves()
    if not path.is_file():
        return Curves(problem="metrics.csv is not a file")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if "step" not in header:
                return Curves(problem="metrics.csv has no column step" if header else None)
            return curves_of(header, rows)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return Curves(problem=f"metrics.csv cannot be read: {visible(error)}")


def curves_of(header: list[str], rows: Iterable[list[str]]) -> Curves:
    """The curves in the columns of a table."""
    columns: dict[str, dict[int, float]] = {name: {} for name in header}
    at = header.index("step")
    for row in rows:
        step = number(row[at]) if len(row) == len(header) else None
        if step is None or step != int(step) or not 0 <= step <= MOST_STEPS:
            continue
        for name, text in zip(header, row, strict=True):
            if (value := number(text)) is not None:
                columns[name][int(step)] = value
    points = {name: sorted(values.items()) for name, values in columns.items()}
    experts = sorted((n.removeprefix(LOAD) for n in points if n.startswith(LOAD)), key=natural)
    return Curves(
        val=points.get("val/sampled_loss") or points.get("val/loss", []),
        train=points.get("train/loss", []),
        load={expert: points[LOAD + expert] for expert in experts},
        tokens_per_second=points.get("tokens_per_second", []),
    )


def number(text: str) -> float | None:
    """A finite number, None for any other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None


def thinned(points: Points, most: int) -> Points:
    """At most `most` points, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]
