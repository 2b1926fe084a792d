"""The Markdown page of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def page(found: dict[str, Any], order: Sequence[str]) -> str:
    """One section per piece, in the order of the list; pieces that are missing are named."""
    pieces = found["pieces"]
    missing = [name for name in order if name not in pieces]
    lines = [
        f"# On {found['device']}",
        "",
        f"`python -m benchmarks.gpu`, begun {found['begun']}, revision {found['revision']}, "
        + ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        + ".",
        "",
    ]
    if found["miniature"]:
        lines += ["**A miniature on a CPU**: it shows that the list runs, and nothing about a GPU.", ""]
    if missing:
        lines += [f"Not run yet: {', '.join(missing)}.", ""]
    lines += ["| piece | outcome | seconds |", "| :-- | :-- | --: |"]
    done = [name for name in order if name in pieces]
    lines += [f"| {n} | {pieces[n]['outcome']} | {pieces[n]['seconds']:.0f} |" for n in done]
    for name in done:
        lines += ["", f"## {name}", "", *section(pieces[name])]
    return "\n".join(lines) + "\n"


def section(piece: dict[str, Any]) -> list[str]:
    """Note and table of a piece."""
    lines = [piece["note"], ""] if piece["note"] else []
    rows = piece["rows"]
    if rows:
        names = list(rows[0])
        numeric = {n for n in names if isinstance(rows[0][n], int | float)}
        lines += [row_of(names), row_of("--:" if name in numeric else ":--" for name in names)]
        lines += [row_of(shown(row.get(name)) for name in names) for row in rows]
    return lines or ["Nothing was found."]


def row_of(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
