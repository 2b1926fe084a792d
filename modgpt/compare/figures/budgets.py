"""The differences from the baselines against the budget, where runs were trained to several."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np

from modgpt.compare.analysis import Statistics
from modgpt.compare.figures.figure import Chart, Figure, by_option, rows
from modgpt.statistics.pairs import Factor


def budgets_figure(statistics: Statistics) -> Figure:
    """The gap of every option against the tokens of a training, a panel per factor."""
    named = {found.factor for found in statistics.budgets}
    panels = [budget_panel(statistics, f) for f in statistics.factors if f.name in named]
    caption = (
        "Difference from the baseline against the budget. Every point is a training whose schedule ends "
        "there. Bars are intervals over the seeds, which hold together for all budgets of a factor."
    )
    return Figure("budgets", caption, panels, columns=min(3, len(panels)), one_legend=False)


def budget_panel(statistics: Statistics, factor: Factor) -> Chart:
    """The options of one factor; the baseline is the line at zero."""
    values: list[dict[str, Any]] = [
        {"option": found.option, "tokens": tokens, "gap": gap.value, "low": gap.low, "high": gap.high}
        for found in statistics.budgets
        if found.factor == factor.name
        for tokens, gap in zip(found.tokens, found.gaps, strict=True)
    ]
    base = alt.Chart(rows(values), title=factor.name).encode(
        x=alt.X("tokens:Q", title="tokens of the training", scale=alt.Scale(type="log", nice=False),
                axis=alt.Axis(format="~s", tickCount=5)),
        y=alt.Y("gap:Q", title="Δ loss (nats)"),
        color=by_option("option", factor.levels, factor.name),
        tooltip=["option:N", alt.Tooltip("tokens:Q", format=",d"), alt.Tooltip("gap:Q", format="+.4f")],
    )  # fmt: skip
    layers = [
        alt.Chart(rows([{"at": 0}])).mark_rule().encode(y=alt.Y("at:Q")),
        base.mark_line(strokeWidth=1.6),
        base.mark_point(filled=True, size=34, opacity=1),
    ]
    if any(np.isfinite(value["low"]) for value in values):
        layers.append(base.mark_rule(size=1.4).encode(y=alt.Y("low:Q"), y2="high:Q"))
    return alt.layer(*layers)
