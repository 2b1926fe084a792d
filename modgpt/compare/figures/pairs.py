"""The mean loss of every pair of options of two factors, as maps for paper."""

from __future__ import annotations

import altair as alt
import numpy as np

from modgpt.compare.analysis import Statistics
from modgpt.compare.figures.figure import Chart, Figure, rows


def pairs_figure(statistics: Statistics, pairs: list[tuple[str, str]]) -> Figure:
    """A map per pair of factors. The page has tables instead, which a screen reader can read."""
    caption = "Mean final loss of every pair of options, over all other choices. Darker is worse."
    panels = [pair_panel(statistics, pair) for pair in pairs]
    return Figure(
        "pairs", caption, panels, columns=min(3, len(pairs)), width=200, height=130, one_legend=False
    )


def pair_panel(statistics: Statistics, pair: tuple[str, str]) -> Chart:
    """The map of one pair of factors."""
    mean, _ = statistics.maps[pair]
    middle = (np.nanmin(mean.to_numpy()) + np.nanmax(mean.to_numpy())) / 2
    values = [
        {"row": row, "column": column, "loss": value, "dark": bool(value > middle)}
        for row, line in mean.iterrows()
        for column, value in line.items()
    ]
    base = alt.Chart(rows(values), title=f"{pair[0]} × {pair[1]}").encode(
        x=alt.X("column:N", title=None, sort=list(mean.columns), axis=alt.Axis(labelAngle=-25)),
        y=alt.Y("row:N", title=None, sort=list(mean.index)),
    )
    colour = alt.Color("loss:Q", legend=None, scale=alt.Scale(scheme="oranges", zero=False))
    text = base.transform_filter("isValid(datum.loss)").mark_text(fontSize=10)
    ink = alt.condition("datum.dark", alt.value("white"), alt.value("#222222"))
    return alt.layer(
        base.mark_rect().encode(color=colour),
        text.encode(text=alt.Text("loss:Q", format=".3f"), color=ink),
    ).resolve_scale(color="independent")
