"""The data that the page's script reads: the runs, their curves, and the specifications of all plots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from modgpt.compare.analysis import Statistics, at_largest, budget_of
from modgpt.compare.columns import LOSS
from modgpt.compare.comparison import Comparison
from modgpt.compare.curves import Curves, Points, thinned
from modgpt.compare.figures.curves import run_curves
from modgpt.compare.figures.experts import final_load, load_curves
from modgpt.compare.figures.figure import Figure
from modgpt.compare.json_values import plain_json
from modgpt.compare.load import Results
from modgpt.compare.style import DARK, LIGHT
from modgpt.compare.tables import records

# Points of all curves of one kind together: it bounds the size of the page for any number of runs.
MOST_POINTS, FEWEST_PER_CURVE, MOST_PER_CURVE = 60_000, 16, 100


def payload(found: Comparison, rows: pd.DataFrame, figures: list[Figure]) -> dict[str, Any]:
    """Everything that the page's script draws."""
    factors = found.results.factors
    return {
        "factors": [{"name": f.name, "levels": list(f.levels)} for f in factors],
        "runs": runs_of(found.results, found.statistics, rows, found.curves),
        "figures": {figure.name: figure.on_screen() for figure in figures},
        "explore": {"curves": run_curves(), "load": load_curves(), "final": final_load()},
        "themes": {"light": LIGHT, "dark": DARK},
    }


def runs_of(
    results: Results, statistics: Statistics, rows: pd.DataFrame, curves: Mapping[str, Curves]
) -> list[dict[str, Any]]:
    """The runs in the order of the table, with their curves thinned."""
    per_curve = max(FEWEST_PER_CURVE, min(MOST_PER_CURVE, MOST_POINTS // len(rows)))
    names = [factor.name for factor in results.factors]
    budget = budget_of(results)
    of_cell = [name for name in names if name != budget]
    cells = {tuple(c[n] for n in of_cell): c["cell"] for c in records(statistics.cells)}
    counted = set(at_largest(results.finished, budget)["path"])
    found = []
    for row in records(rows):
        logged = curves[row["path"]]
        found.append(
            {
                "name": row["run"],
                "status": row["status"],
                "command": row["command"],
                "choices": {n: row[n] for n in names} | {"status": row["status"]},
                "cell": cells[tuple(row[n] for n in of_cell)] if row["path"] in counted else None,
                "loss": row[LOSS],
                "per_step": row["tokens_per_step"],
                "speed": speed(row, logged),
                "flops": row["flops_per_token"],
                "val": packed(thinned(logged.val, per_curve)),
                "train": packed(thinned(logged.train, per_curve)),
                "load": load(logged, per_curve),
            }
        )
    return found


def packed(points: Points) -> list[list[Any]]:
    """[steps, values], the values with five significant digits."""
    return [[step for step, _ in points], [float(f"{value:.5g}") for _, value in points]]


def load(curves: Curves, most: int) -> list[list[list[Any]]] | None:
    """The load of each expert over the steps; None for a run without experts."""
    most = max(8, most // 3)
    return [packed(thinned(points, most)) for points in curves.load.values()] or None


def speed(row: dict[str, Any], curves: Curves) -> float | None:
    """Tokens per second: as measured over the whole run, else the median of the logged values."""
    if row["tokens_per_second"] > 0:
        return row["tokens_per_second"]
    logged = [value for _, value in curves.tokens_per_second]
    return float(np.median(logged)) if logged else None


def as_json(value: Any) -> Markup:
    """JSON that cannot end the script element around it."""
    text = json.dumps(plain_json(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
