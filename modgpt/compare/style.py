"""Colours and type of all figures, for Vega-Lite and for matplotlib."""

from __future__ import annotations

from typing import Any

from cycler import cycler

# Okabe and Ito's colours, which colour-blind readers can tell apart; the baseline has a neutral colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195")
ON_DARK = ("#56B4E9", "#E69F00", "#2FC49A", "#E59AC4", "#F0E442", "#FF8A5B", "#B7A3FF")
BASELINE = "#222222"

# Settings of matplotlib, for figures outside this folder.
STYLE: Any = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "axes.prop_cycle": cycler(color=COLOURS[:6]),
    "svg.hashsalt": "modgpt",  # the same runs give the same file
}


def vega_config(
    text: str = BASELINE, dim: str = "#59636e", line: str = "#e4e4e4", colours: tuple[str, ...] = COLOURS
) -> dict[str, Any]:
    """The configuration of a Vega-Lite figure; the defaults suit white paper.

    Args:
        text, dim, line: colours of text and baselines, of axis titles, and of the grid.
        colours: of the options, the baseline's left out.
    """
    return {
        "background": None,
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": {
            "labelColor": text, "titleColor": text, "gridColor": line, "domainColor": line,
            "tickColor": line, "labelFontSize": 11, "titleFontSize": 11, "titleFontWeight": "normal",
            "labelLimit": 240,
        },
        "legend": {
            "labelColor": text, "titleColor": text, "labelFontSize": 11, "titleFontSize": 11,
            "titleFontWeight": "normal", "orient": "bottom", "columns": 4, "labelLimit": 240,
            "symbolOpacity": 1,
        },
        "title": {"color": text, "fontSize": 12, "fontWeight": "normal"},
        "text": {"color": dim},
        "rule": {"color": dim},
        "range": {"category": [text, *colours], "ramp": {"scheme": "oranges"}},
    }  # fmt: skip


PAPER = vega_config() | {"background": "white", "font": "sans-serif"}
LIGHT = vega_config("#1b1f24", "#59636e", "#d9dde3")
DARK = vega_config("#e4e7eb", "#a0a9b4", "#343a42", ON_DARK)
