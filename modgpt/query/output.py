"""What a query prints: a table for a person, or CSV for a program."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from modgpt.compare.escaping import for_spreadsheet
from modgpt.compare.folders import Problem
from modgpt.console import Output
from modgpt.query.database import Answer
from modgpt.text import visible

MOST_PROBLEMS = 5


def print_table(answer: Answer, found: int | None = None) -> None:
    """Print the rows as a table.

    Args:
        answer: to print.
        found: how many rows there would be without the limit, where there is one.
    """
    console = Output()
    if not console.is_terminal:  # a file has no width
        console = Output(width=100_000)
    table = Table(header_style="bold", show_edge=False)
    for index, name in enumerate(answer.columns):
        number = any(is_number(row[index]) for row in answer.rows)
        table.add_column(escape(visible(name)), justify="right" if number else "left", overflow="fold")
    for row in answer.rows:
        cells = zip(answer.columns, row, strict=True)
        table.add_row(*(escape(shown(name, value)) for name, value in cells))
    console.print(table, highlight=False)
    rows = len(answer.rows)
    more = f" of {found:,}: --limit 0 shows all" if found is not None and found > rows else ""
    print(f"{rows:,} {'row' if rows == 1 and not more else 'rows'}{more}")


def print_csv(answer: Answer) -> None:
    """Print the rows as CSV, with all digits."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([for_spreadsheet(visible(name)) for name in answer.columns])
    for row in answer.rows:
        writer.writerow([cell(value) for value in row])


def print_problems(problems: Sequence[Problem]) -> None:
    """Say on stderr which runs could not be read."""
    for problem in problems[:MOST_PROBLEMS]:
        print(f"not read: {problem}", file=sys.stderr)
    if len(problems) > MOST_PROBLEMS:
        print(f"… and {len(problems) - MOST_PROBLEMS} more", file=sys.stderr)


def cell(value: Any) -> Any:
    """A value for a CSV file."""
    if value is None or is_number(value):
        return value
    return for_spreadsheet(visible(value))


def shown(name: str, value: Any) -> str:
    """A value for a person: losses with four decimals, whole numbers with commas."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return visible(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    return f"{value:.4f}" if "loss" in name or "accuracy" in name else f"{value:.6g}"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
