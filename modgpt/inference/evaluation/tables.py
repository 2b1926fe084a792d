"""Tables of an evaluation: CSV rows, and the table on the terminal.

Runs that differ in their seed alone are one column of the table, their mean, with a 95 % t interval.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from modgpt.compare.escaping import for_spreadsheet
from modgpt.files import replaced
from modgpt.inference.evaluation.evaluate import Evaluation
from modgpt.statistics.noise import t_interval
from modgpt.text import visible

NOT_APPLICABLE = "not applicable"


def write_csv(rows: Iterable[dict[str, Any]], path: Path) -> None:
    """Write rows with the same keys, numbers unrounded; no cell is a formula."""
    rows = [{key: for_spreadsheet(value) for key, value in row.items()} for row in rows]
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
            "bits_per_byte": e.bits_per_byte if e.applicable else "",
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
    """The table of the losses: a row per length, a column per group of runs.

    A star marks the length that a run was trained with.
    """
    groups = grouped(evaluations)
    slides = any(e.stride < e.length for e in evaluations)
    table = Table(
        title="loss by length of the window: nats per token (bits per byte)", header_style="bold"
    )
    table.add_column("length", justify="right")
    if slides:
        table.add_column("stride", justify="right")
    for name in groups:
        table.add_column(escape(visible(name)), justify="right", overflow="fold")
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
    bits = float(np.mean([e.bits_per_byte for e in alike]))
    mark = "*" if alike[0].length == alike[0].trained_length else " "
    return f"{mean:.4f}{f' ± {(high - low) / 2:.4f}' if len(alike) > 1 else ''} ({bits:.4f}){mark}"


def mean_and_interval(alike: Sequence[Evaluation]) -> tuple[float, float, float]:
    """The mean loss and the two ends of its interval; a single run has its loss three times."""
    losses = [e.loss for e in alike]
    if len(losses) == 1:
        return losses[0], losses[0], losses[0]
    return float(np.mean(losses)), *t_interval(losses)


def grouped(evaluations: Iterable[Evaluation]) -> dict[str, dict[int, list[Evaluation]]]:
    """The evaluations by the name that runs share but for their seed, then by length."""
    groups: dict[str, dict[int, list[Evaluation]]] = {}
    for e in evaluations:
        groups.setdefault(e.alike, {}).setdefault(e.length, []).append(e)
    return groups
