"""The final loss against what a combination costs, with the Pareto front."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from modgpt.compare.analysis import Statistics
from modgpt.compare.columns import COSTS
from modgpt.compare.factors import Factor
from modgpt.compare.figures.figure import Chart, Figure, by_option, loss_axis, rows

# Name of every cost on its axis.
COST_NAMES = {
    "active_parameters": "active parameters",
    "flops_per_token": "forward FLOPs per token",
    "tokens_per_second": "training tokens per second",
    "peak_memory_bytes": "peak memory (bytes)",
}


def costs_figure(statistics: Statistics) -> Figure:
    """Mean final loss of every combination against each cost in which they differ."""
    cells = statistics.cells
    differ = [cost for cost in COSTS if cells[cost].nunique() > 1] or [COSTS[0]]
    panels = [cost_panel(statistics, cost) for cost in differ]
    caption = (
        "Mean final loss of every combination against what it costs. The line is the Pareto front: no "
        "combination is both better and cheaper. Speed and memory depend on the machine of each run."
    )
    return Figure("costs", caption, panels, columns=2)


def cost_panel(statistics: Statistics, cost: str) -> Chart:
    """The combinations and the front for one cost; the page can hide points and change their colours."""
    factor = next((f for f in statistics.factors if f.designed), None)
    values = cost_values(statistics.cells, statistics.factors, cost)
    # Between two combinations on the front, the cheaper one is the best: the line has steps.
    step = "step-before" if cost == "tokens_per_second" else "step-after"
    x = alt.X("cost:Q", title=COST_NAMES[cost], axis=alt.Axis(format=".3~s", tickCount=5),
              scale=alt.Scale(zero=False, nice=False, padding=12))  # fmt: skip
    chart = alt.Chart(rows(values)).encode(x=x, y=loss_axis("final loss (nats)"))
    front = (
        chart.transform_filter("datum.front")
        .mark_line(interpolate=step, strokeDash=[3, 3], strokeWidth=1.2, color="#888888")
        .encode(order="cost:Q")
    )
    points = chart.transform_filter("!shown.length || shown[datum.cell]").mark_point(
        filled=True, size=36, opacity=0.8
    )
    tooltip = [alt.Tooltip("name:N", title="combination"), alt.Tooltip("cost:Q", format=",.6~r"),
               alt.Tooltip("loss:Q", format=".4f")]  # fmt: skip
    levels, title = (factor.levels, factor.name) if factor else (("",), "")
    points = points.encode(color=by_option("level", levels, title), tooltip=tooltip)
    return alt.layer(front, points).add_params(alt.param(name="shown", value=[]))


def cost_values(cells: pd.DataFrame, factors: list[Factor], cost: str) -> list[dict[str, Any]]:
    """The combinations with a known cost: loss, cost, options, and whether they are on the front."""
    price, loss = cells[cost].to_numpy(dtype=float), cells["mean"].to_numpy(dtype=float)
    front = set(pareto(price, loss, more_is_better=cost == "tokens_per_second"))
    colour_by = next((f.name for f in factors if f.designed), None)
    return [
        {
            "cell": cell["cell"], "cost": price[i], "loss": loss[i], "front": i in front,
            "name": combination(cell, factors), "level": cell[colour_by] if colour_by else "",
        }
        for i, cell in enumerate(cells.to_dict("records"))
        if np.isfinite(price[i])
    ]  # fmt: skip


def front_rows(statistics: Statistics) -> list[dict[str, str]]:
    """The combinations on the front of each cost, as a table of text."""
    found = []
    for cost in COSTS:
        values = cost_values(statistics.cells, statistics.factors, cost)
        for value in sorted((v for v in values if v["front"]), key=lambda v: v["loss"]):
            found.append(
                {"cost": COST_NAMES[cost], "combination": value["name"]}
                | {"mean final loss": f"{value['loss']:.4f}", "at": f"{value['cost']:,.0f}"}
            )
    return found


def combination(cell: dict[Any, Any], factors: list[Factor]) -> str:
    """A combination by the options in which it differs from the baseline."""
    choices = (f"{f.name}={cell[f.name]}" for f in factors if cell[f.name] != f.baseline)
    return ", ".join(choices) or "the baseline"


def pareto(cost: np.ndarray, loss: np.ndarray, more_is_better: bool) -> list[int]:
    """Indices of the points that no other point beats in both cost and loss, the cheapest first."""
    order = np.lexsort((loss, -cost if more_is_better else cost))
    front, best = [], np.inf
    for index in order:
        if np.isfinite(cost[index]) and loss[index] < best:
            front.append(int(index))
            best = loss[index]
    return front
