"""The load of the experts of a mixture, for the page, which inserts the data of one run."""

from __future__ import annotations

from typing import Any

import altair as alt

from modgpt.compare.figures.figure import specification


def load_curves() -> dict[str, Any]:
    """Share of the tokens of each expert over the steps; the rule is an even share."""
    base = alt.Chart(alt.NamedData("load"))
    lines = base.mark_line(strokeWidth=1.5).encode(
        x=alt.X("step:Q", axis=alt.Axis(format="~s")),
        y=alt.Y("share:Q", title="share of the tokens", scale=alt.Scale(zero=True)),
        color=alt.Color("expert:N", sort=None),
        tooltip=["expert:N", "step:Q", alt.Tooltip("share:Q", format=".3f")],
    )
    even = base.mark_rule(strokeDash=[3, 3]).encode(y="mean(even):Q")
    return specification(alt.layer(lines, even).properties(width="container", height=300))


def final_load() -> dict[str, Any]:
    """Share of the tokens of each expert at the last step."""
    base = alt.Chart(alt.NamedData("load")).transform_filter("datum.last")
    bars = base.mark_bar().encode(
        x=alt.X("expert:N", sort=None, axis=alt.Axis(labelAngle=0)),
        y=alt.Y("share:Q", title="share at the last step"),
        color=alt.Color("expert:N", sort=None, legend=None),
        tooltip=["expert:N", alt.Tooltip("share:Q", format=".3f")],
    )
    even = base.mark_rule(strokeDash=[3, 3]).encode(y="mean(even):Q")
    return specification(alt.layer(bars, even).properties(width="container", height=300))
