"""The first screen of the page: a row per option, with its interval drawn to scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from modgpt.compare.analysis import Statistics
from modgpt.compare.difference_tables import estimated, signed, times, verdict_notes
from modgpt.compare.findings import findings, half
from modgpt.statistics.solved import Solved
from modgpt.statistics.verdict import BASELINE, BETTER, OPEN, SAME, WORSE

# The class of a verdict in the style sheet, and its sign: colour is not all that tells them apart.
KINDS = {
    BASELINE: ("base", ""),
    BETTER: ("better", "▼"),
    WORSE: ("worse", "▲"),
    SAME: ("same", "="),
    OPEN: ("open", "?"),
}
DEPENDS = ("depends", "⇅")
# Columns that only runs with several budgets fill.
FURTHER = ("Δ at equal time", "trend with budget", "effective speed-up")


@dataclass(frozen=True)
class Scale:
    """The values that a drawing covers, from left to right."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """The place of a value in per cent; what lies outside is at the edge."""
        place = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, place)), 2)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and texts of two to seven round numbers."""
        span = self.high - self.low
        step = float(10.0 ** np.floor(np.log10(span)))
        step = next(step * s for s in (0.2, 0.5, 1, 2) if span / (step * s) <= 6)
        first, last = int(np.ceil(self.low / step)), int(np.floor(self.high / step))
        return [(self.at(i * step), f"{i * step:.4g}") for i in range(first, last + 1)]


@dataclass(frozen=True)
class Overview:
    """The table.

    Attributes:
        rows: of the options, the factor that matters most first: `line`.
        ticks: of the drawing, as (place in per cent, text).
        zero, band: places of the line at zero and of ±δ; None for a task, which draws shares.
        contexts: whether losses were compared in several contexts.
        further: headings of the columns about budgets, where there is a value.
    """

    rows: list[dict[str, Any]]
    ticks: list[tuple[float, str]]
    zero: float | None
    band: tuple[float, float] | None
    contexts: bool
    further: list[str]


def overview(statistics: Statistics) -> Overview | None:
    """The table of all options; None where there is nothing to compare."""
    effects = statistics.effects
    if not len(effects):
        return None
    task = bool(statistics.solved)
    scale = Scale(0.0, 1.0) if task else loss_scale(statistics)
    notes, further = verdict_notes(statistics), of_budgets(statistics)
    counts = {(s.factor, s.option): s for s in statistics.solved}
    by_factor = dict(list(effects.groupby("factor", sort=False)))
    rows = []
    for finding in findings(statistics):
        options = by_factor[finding.factor]
        ordered = options.sort_values(
            ["baseline", "difference"], ascending=[False, True], na_position="last", kind="stable"
        )
        for _, effect in ordered.iterrows():
            solved = counts.get((effect["factor"], effect["option"]))
            drawn = of_share(solved, scale) if task else of_difference(effect, scale)
            key = (effect["factor"], effect["option"])
            texts = {"note": notes.get(key, ""), "further": further.get(key, {})}
            rows.append(line(effect) | texts | drawn)
            rows += [] if task else part_lines(effect, statistics, scale)
    band = (scale.at(-statistics.delta), scale.at(statistics.delta))
    return Overview(
        rows=rows,
        ticks=scale.ticks(),
        zero=None if task else scale.at(0),
        band=None if task else band,
        contexts=not task and bool((effects["contexts"] > 1).any()),
        further=[name for name in FURTHER if any(texts[name] for texts in further.values())],
    )


def loss_scale(statistics: Statistics) -> Scale:
    """From the lowest to the highest end of an interval, zero and ±δ within, and a little space."""
    parts = [value for d in statistics.differences for p in d.parts for value in (p.low, p.high)]
    values = statistics.effects[["difference", "low", "high"]].to_numpy(dtype=float).ravel()
    edge = 1.5 * statistics.delta
    known = [value for value in (*values, *parts, -edge, edge) if np.isfinite(value)]
    low, high = float(min(known)), float(max(known))
    space = 0.04 * (high - low)
    return Scale(low - space, high + space)


def line(effect: pd.Series) -> dict[str, Any]:
    """The texts of a row."""
    said = str(effect["verdict"])
    kind, sign = KINDS.get(said, DEPENDS)
    known = not effect["baseline"] and np.isfinite(effect["difference"])
    return {
        "factor": effect["factor"],
        "option": effect["option"],
        "baseline": bool(effect["baseline"]),
        "difference": signed(effect["difference"]) if known else "",
        "half": half(effect.to_dict()) if known else "",
        "value": effect["difference"] if known else None,
        "verdict": said,
        "kind": kind,
        "sign": sign,
        "note": "",
        "won": f"{effect['won']} of {effect['contexts']}" if effect["contexts"] else "",
        "solved": "",
        "base_solved": "",
        "further": {},
    }


def of_budgets(statistics: Statistics) -> dict[tuple[str, str], dict[str, str]]:
    """The texts of the columns `FURTHER`, for every option that was trained to several budgets."""
    return {
        (found.factor, found.option): {
            "Δ at equal time": estimated(found.at_equal_time),
            "trend with budget": " → ".join(signed(gap.value) for gap in found.gaps),
            "effective speed-up": times(found.speed_up),
        }
        for found in statistics.budgets
    }


def part_lines(effect: pd.Series, statistics: Statistics, scale: Scale) -> list[dict[str, Any]]:
    """The rows below an option whose sign turns with another factor: one per level of that factor."""
    key = (effect["factor"], effect["option"])
    rows = []
    for part in next((d.parts for d in statistics.differences if (d.factor, d.option) == key), ()):
        values = {"difference": part.value, "low": part.low, "high": part.high}
        values |= {"verdict": part.verdict, "won": part.won, "contexts": part.contexts}
        of_part = pd.Series(effect.to_dict() | values)
        where = {"where": f"with {part.level}"}
        rows.append(line(of_part) | where | of_difference(of_part, scale))
    return rows


def of_difference(effect: pd.Series, scale: Scale) -> dict[str, Any]:
    """The places of an option's difference and of its interval."""
    value = 0.0 if effect["baseline"] else effect["difference"]
    low, high = effect["low"], effect["high"]
    return {
        "at": scale.at(value) if np.isfinite(value) else None,
        "low": None if np.isnan(low) else scale.at(low),
        "high": None if np.isnan(high) else scale.at(high),
    }


def of_share(found: Solved | None, scale: Scale) -> dict[str, Any]:
    """The places of the share of solved runs, of its interval, and of the baseline's share."""
    if found is None:
        return {"at": None, "low": None, "high": None}
    return {
        "at": scale.at(found.solved / found.runs),
        "low": scale.at(found.low),
        "high": scale.at(found.high),
        "base": scale.at(found.base_solved / found.base_runs),
        "solved": f"{found.solved} of {found.runs}",
        "base_solved": f"{found.base_solved} of {found.base_runs}",
    }
