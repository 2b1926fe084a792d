"""`results.csv` and `results.md`."""

from __future__ import annotations

from pathlib import Path

from modgpt.compare.comparison import Comparison
from modgpt.compare.difference_tables import (
    TEXTS_NOTE,
    budget_rows,
    effect_rows,
    part_rows,
    task_rows,
)
from modgpt.compare.escaping import for_markdown, for_spreadsheet
from modgpt.compare.evidence import evidence
from modgpt.compare.findings import findings
from modgpt.compare.load import Results
from modgpt.compare.tables import (
    LABELS,
    cell_rows,
    interaction_rows,
    job_columns,
    problem_rows,
    ranked,
    records,
    shared,
    shown,
    tuning_rows,
    unfinished_rows,
)
from modgpt.files import replaced
from modgpt.statistics.solved import SOLVED

TASKS_NOTE = (
    f"Runs with a final validation accuracy of {SOLVED:g} or more, over all other choices, with "
    "the exact 95 % interval of their share."
)
MOST_CELLS = 30  # of the best combinations, in results.md


def write_csv(results: Results, path: Path) -> None:
    """Write every job with every column, numbers unrounded."""
    table = ranked(results.table).drop(columns=["path", "tokens_per_step"])
    texts = table.select_dtypes(exclude="number").columns
    table[texts] = table[texts].map(for_spreadsheet)
    table.columns = [str(for_spreadsheet(name)) for name in table.columns]
    with replaced(path) as beside:
        table.to_csv(beside, index=False)


def write_markdown(found: Comparison, path: Path) -> None:
    """Write the paragraphs, the best combinations, the effects, and a row per job."""
    results, statistics, words = found.results, found.statistics, found.words
    parts = ["# Comparison"]
    said = [f"- **{for_markdown(f.factor)}**: {for_markdown(f.text)}" for f in findings(statistics)]
    if said:
        parts.append("\n".join(said))
    badge = [f"{name}: {value}" for name, value in evidence(results, statistics)]
    if badge:
        parts.append(f"Rests on {for_markdown('; '.join(badge))}.")
    parts += map(for_markdown, words.paragraphs)
    if words.cautions:
        parts.append("\n".join(f"- {for_markdown(caution)}" for caution in words.cautions))
    cells = cell_rows(statistics)
    if len(cells) > 1:
        parts += ["## Combinations", markdown(cells[:MOST_CELLS])]
        if len(cells) > MOST_CELLS:
            parts.append(f"The best {MOST_CELLS} of {len(cells)}.")
    if len(statistics.effects):
        parts += [
            "## Differences from the baseline",
            "Below zero is better. The intervals hold together; the costs are those of the same pairs."
            + (f" {TEXTS_NOTE}" if found.texts else ""),
            markdown(effect_rows(statistics, found.texts)),
        ]
    if tasks := task_rows(statistics):
        parts += ["## Solved tasks", TASKS_NOTE, markdown(tasks)]
    if budgets := budget_rows(statistics):
        parts += ["## Budgets", markdown(budgets)]
    if turned := part_rows(statistics):
        parts += ["## Differences that turn", markdown(turned)]
    if tuned := tuning_rows(results):
        parts += ["## Chosen hyperparameters", for_markdown(words.tuning), markdown(tuned)]
    if interactions := interaction_rows(statistics):
        parts += ["## Interactions", markdown(interactions)]
    columns = job_columns(results)
    jobs = [
        {LABELS.get(c, c): shown(c, row[c]) for c in columns}
        for row in records(ranked(results.table)[columns])
    ]
    parts += ["## Jobs", f"All jobs share {for_markdown(shared(results))}.", markdown(jobs)]
    if rows := unfinished_rows(results):
        parts += ["## Not finished", markdown(rows)]
    if rows := problem_rows(results):
        parts += ["## Not read", markdown(rows)]
    with replaced(path) as beside:
        beside.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def markdown(rows: list[dict[str, str]]) -> str:
    """A Markdown table; columns may differ between rows."""
    header = list(dict.fromkeys(name for row in rows for name in row))

    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |"

    body = [line([for_markdown(row.get(name, "")) for name in header]) for row in rows]
    return "\n".join([line([for_markdown(name) for name in header]), line(["---"] * len(header)), *body])
