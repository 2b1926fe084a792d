"""Markdown tables."""

from __future__ import annotations

import re
from collections.abc import Sequence

NUMBER = re.compile(r"[−+]?[\d,.]+( \(.*\))?")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, columns of numbers to the right; a `|` in a cell is escaped."""
    numeric = [all(NUMBER.fullmatch(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [head, ["--:" if right else ":--" for right in numeric], *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines
    )
