"""The loss curves: means of the options of each factor, and every run for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from modgpt.compare.curves import Curves, Points, thinned
from modgpt.compare.factors import Factor
from modgpt.compare.figures.figure import Chart, Figure, by_option, loss_axis, rows, specification

MOST_POINTS = 120  # of a mean curve


def curves_figure(
    frame: pd.DataFrame, curves: Mapping[str, Curves], factors: list[Factor]
) -> Figure | None:
    """Mean validation loss of each option against steps, a panel per factor; None without any."""
    values = {factor: mean_curves(frame, curves, factors, factor) for factor in factors}
    panels = [curve_panel(points, factor) for factor, points in values.items() if points]
    if not panels:
        return None
    caption = (
        "Mean validation loss against steps. Each panel uses the runs that exist for every option of "
        "its factor with the same other choices and seed."
    )
    return Figure("curves", caption, panels, columns=2 if len(panels) in (2, 4) else 3, one_legend=False)


def curve_panel(values: list[dict[str, Any]], factor: Factor) -> Chart:
    """The curves of one factor's options."""
    return (
        alt.Chart(rows(values), title=factor.name)
        .mark_line(strokeWidth=1.6)
        .encode(
            x=alt.X("step:Q", title="step", axis=alt.Axis(format="~s", tickCount=5)),
            y=loss_axis(),
            color=by_option("option", factor.levels, factor.name),
            tooltip=["option:N", "step:Q", alt.Tooltip("loss:Q", format=".4f")],
        )
    )


def mean_curves(
    frame: pd.DataFrame, curves: Mapping[str, Curves], factors: list[Factor], factor: Factor
) -> list[dict[str, Any]]:
    """Mean loss of each option at each step, over runs that differ in this factor alone.

    A choice that was not tried with every option would shift the mean of the options it was tried with,
    so its runs are left out.
    """
    others = [frame[name] for name in (*(f.name for f in factors), "seed") if name != factor.name]
    tried = frame.groupby(others, dropna=False)[factor.name].transform("nunique")
    alike = frame[tried == len(factor.levels)]
    values = []
    for option in factor.levels:
        by_step: dict[int, list[float]] = {}
        for path in alike.loc[alike[factor.name] == option, "path"]:
            for step, loss in curves[path].val:
                by_step.setdefault(step, []).append(loss)
        means: Points = [(step, float(np.mean(by_step[step]))) for step in sorted(by_step)]
        values += [{"option": option, "step": s, "loss": x} for s, x in thinned(means, MOST_POINTS)]
    return values


def run_curves() -> dict[str, Any]:
    """A chart of every run's curve, whose data, axes and colours the page sets."""
    base = (
        alt.Chart(alt.NamedData("runs"))
        .transform_filter("shown[datum.run]")
        .encode(
            x=alt.X("x:Q", axis=alt.Axis(format="~s")),
            y=loss_axis("loss (nats)"),
            color=alt.Color("level:N", title=None),
            detail="run:N",
            tooltip=[
                alt.Tooltip("name:N", title="run"),
                alt.Tooltip("x:Q", title="at", format=",.6~r"),
                alt.Tooltip("loss:Q", format=".4f"),
            ],
        )
    )
    zoom = alt.selection_interval(bind="scales", zoom="wheel![event.shiftKey]")
    lines = base.mark_line(strokeWidth=1.3, opacity=0.85)
    points = base.mark_point(filled=True, size=14, opacity=0.9)
    chart = alt.layer(lines.add_params(zoom), points).add_params(alt.param(name="shown", value=[]))
    return specification(chart.properties(width="container", height=380))
