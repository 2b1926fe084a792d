"""The tables of a comparison: results.csv, results.md, and the top of them for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modgpt.compare.load import ACCURACY, CONDITIONS, HIDDEN, LOSS, NUMBERS, Results
from modgpt.compare.sentences import Words
from modgpt.compare.statistics import Statistics
from modgpt.runs.files import replaced

LABELS = {
    LOSS: "final val loss",
    ACCURACY: "final val accuracy",
    "final_step": "final step",
    "best_val_loss": "best val loss",
    "best_step": "best step",
    "active_parameters": "active parameters",
    "flops_per_token": "FLOPs/token",
    "tokens_seen": "tokens",
    "tokens_per_second": "tokens/s",
    "wall_seconds": "wall time (s)",
    "peak_memory_bytes": "peak memory (MB)",
    "attention_backend": "attention backend",
    "n": "seeds",
    "mean": "mean final val loss",
    "interval": "95 % interval",
    "behind": "behind the best",
}
DIFFERENCE_INTERVAL = "difference: 95 % interval"
MOST_CELLS = 30  # of the best combinations, in results.md


def shown(column: str, value: object) -> str:
    """A value as a reader wants it; nothing where there is none."""
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        return str(value)
    if "loss" in column or column == ACCURACY or column in ("mean", "behind", "deviation", "difference"):
        return f"{value:.4f}"
    if column == "wall_seconds":
        return f"{value:,.1f}"
    if column == "peak_memory_bytes":
        return f"{value / 1e6:,.0f}"
    return f"{value:,.0f}"


def p_shown(p: float) -> str:
    if not np.isfinite(p):
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def interval(low: float, high: float) -> str:
    return f"{low:.4f} to {high:.4f}" if np.isfinite(low) and np.isfinite(high) else ""


def change(ratio: float) -> str:
    """A ratio as a change in per cent."""
    return f"{ratio - 1:+.1%}" if np.isfinite(ratio) else ""


def job_columns(results: Results) -> list[str]:
    """The columns worth showing: what varies, the numbers, and the conditions that differ."""
    table = results.table
    numbers = [n for n in NUMBERS if n != LOSS and table[n].notna().any()]
    conditions = [c for c in CONDITIONS if table[c].nunique() > 1 and c != "match"]
    reason = ["reason"] if (table["reason"] != "").any() else []
    factors = [factor.name for factor in results.factors]
    return [
        "run",
        LOSS,
        "status",
        *factors,
        *sorted(results.tuned),
        "seed",
        *numbers,
        *conditions,
        *reason,
    ]


def shared(results: Results) -> str:
    """What all jobs have in common, for the columns left out."""
    table = results.table
    shown_columns = {*job_columns(results), *HIDDEN, *NUMBERS, "reason"}
    constant = [c for c in table if c not in shown_columns and table[c].nunique() == 1]
    return ", ".join(f"{c}={table[c].dropna().iloc[0]}" for c in constant)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries."""
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def ranked(table: pd.DataFrame) -> pd.DataFrame:
    """The jobs, the best first; those without a final loss at the end, by status."""
    return table.sort_values([LOSS, "status", "run"], na_position="last", kind="stable")


def effect_rows(statistics: Statistics) -> list[dict[str, str]]:
    """The main effects as text."""
    rows = []
    for _, e in statistics.effects.iterrows():
        rows.append(
            {
                "factor": e["factor"],
                "option": e["option"],
                "difference": "" if np.isnan(e["difference"]) else f"{e['difference']:+.4f}",
                DIFFERENCE_INTERVAL: interval(e["difference_low"], e["difference_high"]),
                "difference: p (Holm)": p_shown(e["difference_p_holm"]),
                "verdict": e["verdict"],
                "pairs": str(e["pairs"]) if e["pairs"] else "",
                "deviation": "" if np.isnan(e["deviation"]) else f"{e['deviation']:+.4f}",
                "deviation: 95 % interval": interval(e["deviation_low"], e["deviation_high"]),
                "deviation: p (Holm)": p_shown(e["deviation_p_holm"]),
                "runs": str(e["runs"]),
                "active parameters": change(e["active_parameters_ratio"]),
                "FLOPs/token": change(e["flops_per_token_ratio"]),
                "tokens/s": change(e["tokens_per_second_ratio"]),
                "peak memory": change(e["peak_memory_bytes_ratio"]),
            }
        )
    return rows


def cell_rows(statistics: Statistics) -> list[dict[str, str]]:
    """The combinations as text, the best first."""
    names = [factor.name for factor in statistics.factors]
    answers = statistics.cells[ACCURACY].notna().any()
    rows = []
    for _, c in statistics.cells.iterrows():
        rows.append(
            {"mean": shown("mean", c["mean"]), "95 % interval": interval(c["low"], c["high"])}
            | {"behind": shown("behind", c["behind"]), "tie": "with the best" if c["tie"] else ""}
            | {name: str(c[name]) for name in names}
            | ({"accuracy": shown(ACCURACY, c[ACCURACY])} if answers else {})
            | {"seeds": str(c["n"])}
        )
    return rows


def interaction_rows(statistics: Statistics) -> list[dict[str, str]]:
    """The interactions that the runs can test, as text."""
    tested = statistics.interactions[statistics.interactions["p"].notna()]
    return [
        {
            "factors": f"{i['a']} × {i['b']}",
            "F": f"{i['F']:.2f}",
            "df": f"{i['df']}, {i['df_error']}",
            "p": p_shown(i["p"]),
            "p (Holm)": p_shown(i["p_holm"]),
        }
        for _, i in tested.sort_values("p").iterrows()
    ]


def tuning_rows(results: Results) -> list[dict[str, str]]:
    """Per combination the mean loss with each candidate, and which was chosen."""
    rows = []
    for tuning in results.tunings:
        cells = tuning["cells"]
        same = set.intersection(*(set(c["overrides"]) for c in cells)) if len(cells) > 1 else set()
        for cell in cells:
            name = " ".join(o for o in cell["overrides"] if o not in same) or "the only one"
            losses = {c: shown(LOSS, loss) for c, loss in cell["losses"].items()}
            edge = " (at the edge)" if cell["at_edge"] else ""
            rows.append({"combination": name} | losses | {"chosen": f"{cell['chosen']}{edge}"})
    return rows


def write_csv(results: Results, path: Path) -> None:
    """Every job with every column, numbers unrounded."""
    table = ranked(results.table).drop(columns=["path"])
    with replaced(path) as beside:
        table.to_csv(beside, index=False)


def write_markdown(results: Results, statistics: Statistics, words: Words, path: Path) -> None:
    """The sentences, the best combinations, the effects, and a row per job."""
    parts = ["# Comparison", *words.paragraphs]
    if words.cautions:
        parts.append("\n".join(f"- {caution}" for caution in words.cautions))
    cells = cell_rows(statistics)
    if len(cells) > 1:
        parts += ["## Combinations", markdown(cells[:MOST_CELLS])]
        if len(cells) > MOST_CELLS:
            parts.append(f"The best {MOST_CELLS} of {len(cells)}.")
    if len(statistics.effects):
        parts += [
            "## Main effects",
            "Deviation from the grand mean (sum-coded), and mean paired difference to the baseline; "
            "the costs are those of the same pairs.",
            markdown(effect_rows(statistics)),
        ]
    if tuned := tuning_rows(results):
        parts += ["## Chosen hyperparameters", words.tuning, markdown(tuned)]
    if interactions := interaction_rows(statistics):
        parts += ["## Interactions", markdown(interactions)]
    columns = job_columns(results)
    jobs = [
        {LABELS.get(c, c): shown(c, row[c]) for c in columns}
        for row in records(ranked(results.table)[columns])
    ]
    parts += ["## Jobs", f"All share {shared(results)}.", markdown(jobs)]
    with replaced(path) as beside:
        beside.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def markdown(rows: list[dict[str, str]]) -> str:
    """A Markdown table; what would end a cell or become markup is escaped."""

    def line(cells: list[str]) -> str:
        escaped = (" ".join(c.split()).replace("|", "\\|").replace("<", "&lt;") for c in cells)
        return f"| {' | '.join(escaped)} |"

    header = list(rows[0])
    return "\n".join(
        [line(header), line(["---"] * len(header)), *(line(list(r.values())) for r in rows)]
    )


def print_top(
    console: Console, results: Results, statistics: Statistics, words: Words, most: int = 10
) -> None:
    """The best jobs and the main effects, for a person at a terminal."""
    short = {"run": "run", "status": "status", LOSS: "loss", "best_val_loss": "best"}
    short |= {"active_parameters": "active", "tokens_per_second": "tokens/s"}
    rows = ranked(results.table)
    if rows[ACCURACY].notna().any():
        short |= {ACCURACY: "accuracy"}
    best = [{short[c]: shown(c, row[c]) for c in short} for row in records(rows.head(most))]
    console.print(rich_table(best, f"best {most} of {len(rows)} jobs" if len(rows) > most else "jobs"))
    if len(statistics.effects):
        wanted = ("factor", "option", "difference", DIFFERENCE_INTERVAL, "verdict")
        effects = [{k.split(": ")[-1]: row[k] for k in wanted} for row in effect_rows(statistics)]
        console.print(rich_table(effects, "main effects: difference to the baseline"))
    for text in (words.jobs, words.noise, *words.cautions):
        console.print(text, markup=False, highlight=False)


def rich_table(rows: list[dict[str, str]], title: str) -> Table:
    """Rows for a terminal; long words are folded, so that nothing is cut off."""
    table = Table(header_style="bold", title=title)
    for column in rows[0]:
        justify = "left" if column in ("run", "status", "factor", "option", "verdict") else "right"
        table.add_column(escape(column), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(escape(value) for value in row.values()))
    return table
