"""The differences from the baselines: a line per option, with its interval."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np

from modgpt.compare.analysis import Statistics
from modgpt.compare.figures.figure import Figure, rows
from modgpt.compare.findings import findings
from modgpt.statistics.verdict import OPEN, SAME

LINE = 23  # points between two options


def effects_figure(statistics: Statistics) -> Figure:
    """Difference of every option from its baseline, with its interval; the factors in order of size."""
    labels, heads, values = effect_lines(statistics)
    x = alt.X(
        "value:Q",
        title="change of the loss (nats); left is better",
        axis=alt.Axis(tickCount=7),
    )
    y = alt.Y("line:O", title=None, scale=alt.Scale(domain=list(range(len(labels)))), axis=alt.Axis(
        labelExpr="labels[datum.value]", grid=False, ticks=False, domain=False,
        labelFontWeight=alt.condition("heads[datum.value]", alt.value("bold"), alt.value("normal")),
    ))  # fmt: skip
    roles = alt.Scale(domain=["baseline", "option"])
    colour = alt.Color("role:N", scale=roles, legend=None)
    tooltip = [
        alt.Tooltip("factor:N"), alt.Tooltip("option:N"), alt.Tooltip("value:Q", format="+.4f"),
        alt.Tooltip("low:Q", format="+.4f"), alt.Tooltip("high:Q", format="+.4f"),
        alt.Tooltip("verdict:N"),
    ]  # fmt: skip
    base = alt.Chart(rows(values)).encode(x=x, y=y, color=colour, tooltip=tooltip)
    zero = alt.Chart(rows([{"at": 0}])).mark_rule().encode(x="at:Q")
    same = (
        alt.Chart(rows([{"from": -statistics.delta, "to": statistics.delta}]))
        .mark_rect(opacity=0.12, color="#808080")
        .encode(x=alt.X("from:Q"), x2="to:Q")
    )
    bars = base.mark_rule(size=1.6).encode(x=alt.X("low:Q"), x2="high:Q")
    points = base.mark_point(size=38, opacity=1).encode(
        fill=alt.Fill("role:N", scale=roles, legend=None),
        fillOpacity=alt.condition("datum.open", alt.value(0), alt.value(1)),
    )
    text = (
        base.transform_filter("datum.role == 'option'")
        .mark_text(dy=-9, fontSize=9)
        .encode(text=alt.Text("value:Q", format="+.3f"), color=alt.Undefined)
    )
    intervals = any(np.isfinite(value["low"]) for value in values)
    layers = [same, zero, *([bars] if intervals else []), points, text]
    chart = alt.layer(*layers).add_params(
        alt.param(name="labels", value=labels),
        alt.param(name="heads", value=heads),
    )
    caption = "Difference of every option from the baseline of its factor. "
    if intervals:
        caption += (
            f"Bars are intervals that hold together with {100 * statistics.confidence:.3g} % "
            f"confidence; the band is ±{statistics.delta:g}, within which options count as the same; "
            "hollow points are differences that the runs cannot tell from zero."
        )
    elif statistics.solved:
        caption += "No intervals: on this task the number of runs that solved it decides."
    else:
        caption += "No intervals: there is one seed."
    return Figure("differences", caption, [chart], width=420, height=LINE * len(labels))


def effect_lines(statistics: Statistics) -> tuple[list[str], list[bool], list[dict[str, Any]]]:
    """The labels from top to bottom, which of them head a factor, and the values at their lines.

    An option whose sign turns with another factor has a line per level of that factor below its own.
    """
    labels: list[str] = []
    heads: list[bool] = []
    values = []
    parts = {(d.factor, d.option): d.parts for d in statistics.differences}
    by_factor = dict(list(statistics.effects.groupby("factor", sort=False)))
    for finding in findings(statistics):
        labels.append(finding.factor)
        heads.append(True)
        for effect in by_factor[finding.factor].to_dict("records"):
            baseline = bool(effect["baseline"])
            labels.append(f"{effect['option']}{' (baseline)' if baseline else ''}")
            heads.append(False)
            value = 0.0 if baseline else effect["difference"]
            if value == value:
                values.append(
                    {
                        "factor": effect["factor"], "option": effect["option"],
                        "line": len(labels) - 1, "value": value, "low": effect["low"],
                        "high": effect["high"], "verdict": effect["verdict"],
                        "role": "baseline" if baseline else "option",
                        "open": effect["verdict"] in (OPEN, SAME) and not baseline,
                    }
                )  # fmt: skip
            for part in parts.get((effect["factor"], effect["option"]), ()):
                labels.append(f"with {part.level}")
                heads.append(False)
                values.append(
                    {
                        "factor": effect["factor"], "option": f"{effect['option']} with {part.level}",
                        "line": len(labels) - 1, "value": part.value, "low": part.low,
                        "high": part.high, "verdict": part.verdict, "role": "option",
                        "open": part.verdict in (OPEN, SAME),
                    }
                )  # fmt: skip
    return labels, heads, values
