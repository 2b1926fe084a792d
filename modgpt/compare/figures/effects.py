"""The main effects: a line per option, with its interval."""

from __future__ import annotations

from typing import Any

import altair as alt

from modgpt.compare.figures.figure import Figure, rows
from modgpt.compare.statistics import Statistics

KINDS = {"difference": "paired difference to the baseline", "deviation": "deviation from the grand mean"}
LINE = 23  # points between two options


def effects_figure(statistics: Statistics) -> Figure:
    """Effect of every option on the final loss, with its 95 % interval where there is one.

    The page can switch to the deviations by the parameter `kind`; paper shows the differences.
    """
    labels, heads, values = effect_lines(statistics)
    noisy = statistics.noise.sigma is not None
    x = alt.X("value:Q", title="change of the loss (nats); left is better", axis=alt.Axis(tickCount=7))
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
    base = (
        alt.Chart(rows(values))
        .transform_filter("datum.kind == kind")
        .encode(x=x, y=y, color=colour, tooltip=tooltip)
    )
    zero = alt.Chart(rows([{"at": 0}])).mark_rule().encode(x="at:Q")
    bars = base.mark_rule(size=1.6).encode(x=alt.X("low:Q"), x2="high:Q")
    points = base.mark_point(size=38, opacity=1).encode(
        fill=alt.Fill("role:N", scale=roles, legend=None),
        fillOpacity=alt.condition("datum.tie", alt.value(0), alt.value(1)),
    )
    text = (
        base.transform_filter("datum.role == 'option'")
        .mark_text(dy=-9, fontSize=9)
        .encode(text=alt.Text("value:Q", format="+.3f"), color=alt.Undefined)
    )
    chart = alt.layer(zero, bars, points, text).add_params(
        alt.param(name="kind", value="difference"),
        alt.param(name="labels", value=labels),
        alt.param(name="heads", value=heads),
    )
    bars_mean = "Bars are 95 % intervals from the seed noise; hollow points are ties."
    caption = (
        "Paired difference of every option to the baseline of its factor. "
        f"{bars_mean if noisy else 'No intervals: there is one seed.'}"
    )
    return Figure("main_effects", caption, [chart], width=420, height=LINE * len(labels))


def effect_lines(statistics: Statistics) -> tuple[list[str], list[bool], list[dict[str, Any]]]:
    """The labels from top to bottom, which of them head a factor, and the values at their lines."""
    labels: list[str] = []
    heads: list[bool] = []
    values = []
    for factor, options in statistics.effects.groupby("factor", sort=False):
        labels.append(str(factor))
        heads.append(True)
        for effect in options.to_dict("records"):
            labels.append(f"{effect['option']}{' (baseline)' if effect['baseline'] else ''}")
            heads.append(False)
            values += [effect_value(effect, kind, len(labels) - 1) for kind in KINDS]
    return labels, heads, [value for value in values if value["value"] is not None]


def effect_value(effect: dict[Any, Any], kind: str, line: int) -> dict[str, Any]:
    """One option's effect: a difference or a deviation, its interval, and whether that contains zero."""
    baseline = bool(effect["baseline"])
    value, low, high = effect[kind], effect[f"{kind}_low"], effect[f"{kind}_high"]
    if baseline and kind == "difference":
        value = 0.0
    return {
        "factor": effect["factor"], "option": effect["option"], "kind": kind, "line": line,
        "value": value if value == value else None, "low": low, "high": high,
        "tie": bool(low <= 0 <= high), "role": "baseline" if baseline else "option",
        "verdict": effect["verdict"],
    }  # fmt: skip
