"""The summary of a comparison for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modgpt.compare.analysis import Statistics
from modgpt.compare.columns import ACCURACY, LOSS
from modgpt.compare.difference_tables import DIFFERENCE, INTERVAL, VERDICT, effect_rows, task_rows
from modgpt.compare.findings import findings
from modgpt.compare.load import Results
from modgpt.compare.sentences import Words
from modgpt.compare.tables import (
    ranked,
    records,
    shown,
)
from modgpt.compare.unfinished import unfinished

MOST_LINES = 5  # of runs that are left out


def print_summary(
    console: Console, results: Results, statistics: Statistics, words: Words, most: int = 10
) -> None:
    """Print the findings, the differences, the best jobs, the cautions, and what was left out."""
    print_verdicts(console, statistics)
    short = {"run": "run", "status": "status", LOSS: "loss", "best_val_loss": "best"}
    short |= {"active_parameters": "active", "tokens_per_second": "tokens/s"}
    rows = ranked(results.table)
    if rows[ACCURACY].notna().any():
        short |= {ACCURACY: "accuracy"}
    best = [{short[c]: shown(c, row[c]) for c in short} for row in records(rows.head(most))]
    console.print(rich_table(best, f"best {most} of {len(rows)} jobs" if len(rows) > most else "jobs"))
    print_plain(console, [words.jobs, words.noise, *words.cautions])
    print_plain(console, first([group.sentence for group in unfinished(results)]))
    print_plain(console, first([f"not read: {problem}" for problem in results.problems]))


def print_verdicts(console: Console, statistics: Statistics) -> None:
    """Print a sentence per factor and a row per option."""
    if not len(statistics.effects):
        return
    wanted = ("factor", "option", DIFFERENCE, INTERVAL, VERDICT, "contexts won")
    several = any(d.contexts > 1 for d in statistics.differences)
    if "solved" in statistics.effects:
        wanted = (*wanted[:3], "solved", "baseline solved", VERDICT)
    effects = [
        {k: row[k] for k in wanted if several or k != "contexts won"} for row in effect_rows(statistics)
    ]
    console.print(rich_table(effects, "differences from the baseline, nats per token"))
    if tasks := task_rows(statistics):
        console.print(rich_table(tasks, "solved runs, with exact 95 % intervals of their share"))
    print_plain(console, [f"{finding.factor}: {finding.text}" for finding in findings(statistics)])


def first(lines: list[str]) -> list[str]:
    """The first of some lines, and how many more results.md has."""
    more = len(lines) - MOST_LINES
    return lines[:MOST_LINES] + ([f"… and {more} more, in results.md"] if more > 0 else [])


def print_plain(console: Console, lines: list[str]) -> None:
    """Print lines as they are: rich would take brackets in them for its own markup."""
    for line in lines:
        if line:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def rich_table(rows: list[dict[str, str]], title: str) -> Table:
    """A table for a terminal; long words are folded, not cut off."""
    table = Table(header_style="bold", title=title)
    for column in rows[0]:
        justify = "left" if column in ("run", "status", "factor", "option", "verdict") else "right"
        table.add_column(escape(column), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(escape(value) for value in row.values()))
    return table
