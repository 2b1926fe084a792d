"""What a figure is: panels in Vega-Lite, side by side on paper, below each other on a narrow screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt

from modgpt.compare.json_values import plain_json
from modgpt.compare.style import PAPER

Chart = alt.Chart | alt.LayerChart | alt.FacetChart
AXIS_AND_LEGEND = 90  # points, which the height of a panel on the page includes


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: of its file.
        caption: one sentence that says what is drawn.
        panels: charts without a width.
        columns: of panels on paper.
        width, height: of a panel on paper, in points.
        one_legend: the panels have the same colours, and so one legend on paper.
    """

    name: str
    caption: str
    panels: list[Chart]
    columns: int = 1
    width: int = 260
    height: int = 190
    one_legend: bool = True

    def on_paper(self) -> dict[str, Any]:
        """The specification of the whole figure, at a fixed size."""
        sized = [panel.properties(width=self.width, height=self.height) for panel in self.panels]
        whole = sized[0]
        if len(sized) > 1:
            colours = "shared" if self.one_legend else "independent"
            whole = alt.concat(*sized, columns=self.columns).resolve_scale(color=colours)
        return specification(whole) | {"config": PAPER}

    def on_screen(self) -> list[dict[str, Any]]:
        """The specification of every panel, as wide as the element of the page that shows it."""
        size = {
            "width": "container",
            "height": self.height + AXIS_AND_LEGEND,
            "autosize": {"type": "fit", "contains": "padding"},
        }
        described = [panel.properties(description=self.caption, **size) for panel in self.panels]
        return [specification(panel) for panel in described]


def specification(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """A chart as JSON, without altair's own configuration."""
    found = chart.to_dict()
    found.pop("config", None)
    return found


def rows(values: list[dict[str, Any]]) -> alt.InlineData:
    """Rows of data for a chart; numbers that are not finite are left out."""
    return alt.InlineData(values=plain_json(values))


def by_option(field: str, levels: tuple[str, ...], title: str) -> alt.Color:
    """Colour by the options of a factor, in their order: the baseline has the first colour."""
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=list(levels)), title=title)


def loss_axis(title: str = "validation loss (nats)") -> alt.Y:
    """A y axis for losses, which does not start at zero."""
    return alt.Y("loss:Q", title=title, scale=alt.Scale(zero=False, nice=False, padding=8))
