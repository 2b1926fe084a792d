"""Solved tasks: a map of options and tasks per factor."""

from __future__ import annotations

import altair as alt

from modgpt.compare.analysis import Statistics
from modgpt.compare.figures.figure import Chart, Figure, rows
from modgpt.statistics.solved import SOLVED, TaskCount


def solved_figure(statistics: Statistics) -> Figure:
    """A map per factor: how many runs of every option solved every task."""
    panels = [
        solved_panel([c for c in statistics.tasks if c.factor == factor.name], factor.levels)
        for factor in statistics.factors
        if any(c.factor == factor.name for c in statistics.tasks)
    ]
    tasks = len({c.task for c in statistics.tasks})
    caption = f"Runs that solved the task: a final validation accuracy of {SOLVED:g} or more."
    return Figure("solved", caption, panels, columns=1, width=380, height=18 * tasks + 20)


def solved_panel(counts: list[TaskCount], levels: tuple[str, ...]) -> Chart:
    """The map of one factor: its options in columns, the tasks in rows."""
    values = [
        {
            "task": c.task,
            "option": c.option,
            "share": c.solved / c.runs,
            "count": f"{c.solved}/{c.runs}",
            "interval": f"{c.low:.0%} to {c.high:.0%}",
        }
        for c in counts
    ]
    base = alt.Chart(rows(values), title=counts[0].factor).encode(
        x=alt.X("option:N", title=None, sort=list(levels), axis=alt.Axis(labelAngle=-25)),
        y=alt.Y("task:N", title=None),
        tooltip=["task:N", "option:N", "count:N", "interval:N"],
    )
    scale = alt.Scale(scheme="greens", domain=[0, 1])
    ink = alt.condition("datum.share > 0.6", alt.value("white"), alt.value("#222222"))
    return alt.layer(
        base.mark_rect().encode(color=alt.Color("share:Q", legend=None, scale=scale)),
        base.mark_text(fontSize=10).encode(text="count:N", color=ink),
    )
