"""Results of the committed sweeps."""

from __future__ import annotations

from pathlib import Path

from regions.markdown import table

RESULTS = Path(__file__).parents[1] / "results"
HEADING = "## Differences from the baseline"
SHOWN = ("option", "difference", "95 % interval", "verdict", "on other texts", "runs")


def differences(factor: str) -> str:
    """Return the differences of a factor's options in the sweep of one choice at a time.

    Raises:
        ValueError: the sweep has no such factor.
    """
    text = (RESULTS / "one_at_a_time" / "results.md").read_text(encoding="utf-8")
    head, _, *rows = text.split(HEADING)[1].split("\n\n")[2].splitlines()
    names = cells(head)
    found = [dict(zip(names, cells(row), strict=True)) for row in rows]
    found = [row for row in found if row["factor"] == factor]
    if not found:
        raise ValueError(f"results/one_at_a_time/results.md has no factor {factor}")
    return table(SHOWN, [[shown(name, row[name]) for name in SHOWN] for row in found])


def cells(line: str) -> list[str]:
    """The cells of a line of a Markdown table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def shown(name: str, text: str) -> str:
    """A cell with minus signs, the option as code."""
    if name == "option":
        return f"`{text}`"
    return text.replace("-", "−") if name in ("difference", "95 % interval") else text
