"""The packages of the source tree."""

from __future__ import annotations

from regions.markdown import table
from regions.source import ROOT, first_line


def packages() -> str:
    """Return the table of the packages of modgpt, each with the first line of its docstring."""
    rows = []
    for path in sorted((ROOT / "modgpt").glob("*/__init__.py")):
        rows.append([f"`modgpt/{path.parent.name}/`", first_line(path)])
    return table(("folder", "content"), rows)
