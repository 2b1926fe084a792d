"""The figures that some runs allow, and writing them as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import vl_convert

from modgpt.compare.analysis import Statistics, at_largest, budget_of
from modgpt.compare.columns import ACCURACY
from modgpt.compare.curves import Curves
from modgpt.compare.factors import is_numeric
from modgpt.compare.figures.accuracy import accuracy_figure
from modgpt.compare.figures.budgets import budgets_figure
from modgpt.compare.figures.costs import costs_figure
from modgpt.compare.figures.curves import curves_figure
from modgpt.compare.figures.effects import effects_figure
from modgpt.compare.figures.figure import Figure
from modgpt.compare.figures.pairs import pairs_figure
from modgpt.compare.figures.solved import solved_figure
from modgpt.compare.load import Results
from modgpt.files import replaced

FORMATS = ("png", "svg", "pdf")


def figures(results: Results, statistics: Statistics, curves: Mapping[str, Curves]) -> list[Figure]:
    """Every figure for which there is something to draw.

    Args:
        results, statistics: of the comparison.
        curves: of the runs, by the paths of their folders.
    """
    designed = [factor for factor in statistics.factors if factor.designed]
    numeric = [factor for factor in designed if is_numeric(factor)]
    found = []
    alike = at_largest(results.finished, budget_of(results))
    if len(statistics.effects):
        found.append(effects_figure(statistics))
        if (logged := curves_figure(alike, curves, designed)) is not None:
            found.append(logged)
    if statistics.budgets:
        found.append(budgets_figure(statistics))
    if len(statistics.cells):
        found.append(costs_figure(statistics))
    if numeric and results.finished[ACCURACY].notna().any():
        found.append(accuracy_figure(results, designed, numeric))
    if statistics.tasks:
        found.append(solved_figure(statistics))
    crossed = statistics.interactions[statistics.interactions["df"] > 0]
    if len(crossed):
        found.append(pairs_figure(statistics, list(zip(crossed["a"], crossed["b"], strict=True))))
    return found


def write_figures(drawn: list[Figure], folder: Path, form: str) -> list[Path]:
    """Write figures for paper, without a network or a browser; returns the files.

    Args:
        drawn: the figures.
        folder: where to write.
        form: one of `FORMATS`.
    """
    written = []
    for figure in drawn:
        path = folder / f"{figure.name}.{form}"
        with replaced(path) as beside:
            beside.write_bytes(rendered(figure, form))
        written.append(path)
    return written


def rendered(figure: Figure, form: str) -> bytes:
    """A figure as the content of a file."""
    if form == "svg":
        return vl_convert.vegalite_to_svg(figure.on_paper()).encode()
    if form == "pdf":
        return vl_convert.vegalite_to_pdf(figure.on_paper())
    return vl_convert.vegalite_to_png(figure.on_paper(), scale=2)
