"""Accuracy on a task with answers, against the factor that is a number."""

from __future__ import annotations

from typing import Any

import altair as alt

from modgpt.compare.columns import ACCURACY
from modgpt.compare.factors import Factor
from modgpt.compare.figures.figure import Chart, Figure, by_option, rows
from modgpt.compare.load import Results


def accuracy_figure(results: Results, factors: list[Factor], numeric: list[Factor]) -> Figure:
    """Accuracy against the numeric factor with most levels, a line per option of the first other factor.

    Each level of a second numeric factor has a panel of its own; a factor of the model is preferred to
    one of the optimizer. Points are runs, lines their means.
    """
    across, *rest = sorted(numeric, key=lambda f: (f.name.startswith("optimizer."), -len(f.levels)))
    others = [factor for factor in factors if factor not in numeric][:1]
    line = others[0] if others else None
    panels = [(rest[0].name, level) for level in sorted(rest[0].levels, key=float)] if rest else [None]
    charts = [accuracy_panel(results, across, line, panel) for panel in panels]
    caption = "Final validation accuracy. Points are runs, lines their means."
    return Figure("accuracy", caption, charts, columns=len(charts), width=220)


def accuracy_panel(
    results: Results, across: Factor, line: Factor | None, panel: tuple[str, str] | None
) -> Chart:
    """The runs of one panel: a factor and its level, or all of them."""
    shown = results.finished
    if panel is not None:
        shown = shown[shown[panel[0]] == panel[1]]
    values: list[dict[str, Any]] = [
        {"at": row[across.name], "option": row[line.name] if line else "", "accuracy": row[ACCURACY]}
        for row in shown.to_dict("records")
    ]
    levels = sorted(across.levels, key=float)
    base = alt.Chart(rows(values)).encode(
        x=alt.X("at:O", title=across.name, sort=levels, scale=alt.Scale(domain=levels),
                axis=alt.Axis(labelAngle=0)),
        color=by_option("option", line.levels, line.name) if line else alt.Undefined,
    )  # fmt: skip
    title, scale = "final validation accuracy", alt.Scale(domain=[0, 1])
    # The options stand a little apart, so that points with the same accuracy do not hide each other.
    apart = alt.XOffset("option:N", sort=list(line.levels) if line else None)
    chart = alt.layer(
        base.mark_line(strokeWidth=1.6).encode(y=alt.Y("mean(accuracy):Q", title=title, scale=scale)),
        base.mark_point(filled=True, size=18, opacity=0.5).encode(
            y=alt.Y("accuracy:Q", title=title, scale=scale), xOffset=apart
        ),
    )
    return chart.properties(title=f"{panel[0]} = {panel[1]}") if panel else chart
