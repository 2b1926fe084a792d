"""The summary of a comparison for a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modgpt.compare.analysis import Statistics, analyse
from modgpt.compare.columns import ACCURACY, LOSS
from modgpt.compare.difference_tables import DIFFERENCE, VERDICT, effect_rows, task_rows
from modgpt.compare.findings import findings, half
from modgpt.compare.load import Results, load_results
from modgpt.compare.sentences import Words
from modgpt.compare.tables import (
    ranked,
    records,
    shown,
)
from modgpt.compare.unfinished import unfinished
from modgpt.errors import UserError
from modgpt.text import visible

MOST_LINES = 5  # of runs that are left out


def print_summary(
    console: Console, results: Results, statistics: Statistics, words: Words, most: int = 10
) -> None:
    """Print the findings, the differences, the best jobs, the cautions, and what was left out."""
    print_verdicts(console, statistics)
    short = {"run": "run", "status": "status", LOSS: "loss", "best_val_loss": "best (sample)"}
    short |= {"active_parameters": "active", "tokens_per_second": "tokens/s"}
    rows = ranked(results.table)
    if rows[ACCURACY].notna().any():
        short |= {ACCURACY: "accuracy"}
    best = [{short[c]: shown(c, row[c]) for c in short} for row in records(rows.head(most))]
    console.print(rich_table(best, f"best {most} of {len(rows)} jobs" if len(rows) > most else "jobs"))
    print_plain(console, [words.jobs, words.noise, *words.cautions])
    print_plain(console, first([group.sentence for group in unfinished(results)]))
    print_plain(console, first([f"not read: {problem}" for problem in results.problems]))


def print_sweep(console: Console, sweep: Path) -> None:
    """Print the verdicts on the finished runs of a sweep; nothing where there is nothing to compare."""
    try:
        results = load_results([sweep])
    except UserError:  # no job has left a record
        return
    statistics = analyse(results, results.looks.same_within, results.looks.confidence)
    if len(statistics.effects):
        print_verdicts(console, statistics)
        print_plain(console, [f"modgpt compare {visible(sweep)} shows costs, curves and cautions"])


def print_verdicts(console: Console, statistics: Statistics) -> None:
    """Print a sentence per factor and a row per option."""
    if not len(statistics.effects):
        return
    wanted = ["factor", "option", DIFFERENCE, "contexts won", VERDICT]
    if "solved" in statistics.effects:
        wanted[3:4] = ["solved", "baseline solved"]
    elif all(found.contexts < 2 for found in statistics.differences):
        wanted.remove("contexts won")
    rows = []
    for row, effect in zip(effect_rows(statistics), statistics.effects.to_dict("records"), strict=True):
        if row[DIFFERENCE]:
            row[DIFFERENCE] = f"{effect['difference']:+.3f}{half(effect)}"
        rows.append({name: row[name] for name in wanted})
    console.print(rich_table(rows, f"differences from the baseline, {statistics.unit}"))
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
