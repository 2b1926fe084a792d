"""The tables of a comparison, as rows of text that the page, results.md and the terminal show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from modgpt.compare.analysis import Statistics
from modgpt.compare.columns import ACCURACY, BITS_PER_BYTE, CONDITIONS, HIDDEN, LOSS, NUMBERS
from modgpt.compare.load import Results
from modgpt.compare.unfinished import unfinished
from modgpt.text import visible

LABELS = {
    LOSS: "final val loss",
    BITS_PER_BYTE: "bits per byte",
    ACCURACY: "final val accuracy",
    "final_step": "final step",
    "best_val_loss": "best val loss (sample)",
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
MOST_NAMES = 5  # of runs with the same status and reason


def shown(column: str, value: object) -> str:
    """A value as text with a suitable number of digits; empty where there is none."""
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return ""
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        return str(value)
    if "loss" in column or column in (ACCURACY, BITS_PER_BYTE, "mean", "behind", "difference"):
        return f"{value:.4f}"
    if column == "wall_seconds":
        return f"{value:,.1f}"
    if column == "peak_memory_bytes":
        return f"{value / 1e6:,.0f}"
    return f"{value:,.0f}"


def p_shown(p: float) -> str:
    """A p-value as text."""
    if not np.isfinite(p):
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def interval(low: float, high: float, form: str = ".4f") -> str:
    """`1.6 to 1.8`; empty where there is no interval."""
    return f"{low:{form}} to {high:{form}}" if np.isfinite(low) and np.isfinite(high) else ""


def job_columns(results: Results) -> list[str]:
    """The columns of the table of jobs: what varies, the numbers, and the conditions that differ."""
    table = results.table
    numbers = [n for n in NUMBERS if n != LOSS and table[n].notna().any()]
    conditions = [c for c in CONDITIONS if table[c].nunique() > 1 and c != "match"]
    reason = ["reason"] if (table["reason"] != "").any() else []
    choices = [*(factor.name for factor in results.factors), *sorted(results.tuned & set(table))]
    return ["run", LOSS, "status", *choices, "seed", *numbers, *conditions, *reason]


def shared(results: Results) -> str:
    """The settings that all jobs share, which the table of jobs leaves out."""
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


def cell_rows(statistics: Statistics) -> list[dict[str, str]]:
    """The combinations as text, the best first."""
    names = [factor.name for factor in statistics.factors]
    answers = statistics.cells[ACCURACY].notna().any()
    known = statistics.noise.sigma is not None
    rows = []
    for _, c in statistics.cells.iterrows():
        rows.append(
            {"mean": shown("mean", c["mean"]), "95 % interval": interval(c["low"], c["high"])}
            | {"behind": shown("behind", c["behind"])}
            | ({"may be the best": "yes" if c["may_be_best"] else ""} if known else {})
            | {name: str(c[name]) for name in names}
            | ({"accuracy": shown(ACCURACY, c[ACCURACY])} if answers else {})
            | {"seeds": str(c["n"])}
        )
    return rows


def interaction_rows(statistics: Statistics) -> list[dict[str, str]]:
    """The tests of interactions that these runs allow, as text."""
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
    """For each combination: the mean loss with each candidate, and the chosen one."""
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


def unfinished_rows(results: Results) -> list[dict[str, str]]:
    """The runs that do not count, a row per status and reason."""
    return [
        {
            "jobs": f"{len(group.runs):,}",
            "status": group.status,
            "reason": group.reason,
            "last step": span(group.steps, ",.0f"),
            "latest loss": span(group.losses, ".4f"),
            "runs": ", ".join(group.runs[:MOST_NAMES]) + (", …" if len(group.runs) > MOST_NAMES else ""),
        }
        for group in unfinished(results)
    ]


def span(numbers: list[float], form: str) -> str:
    """A number, or the smallest and largest of several; empty for none."""
    if not numbers:
        return ""
    low, high = format(min(numbers), form), format(max(numbers), form)
    return low if low == high else f"{low} to {high}"


def problem_rows(results: Results) -> list[dict[str, str]]:
    """The paths that could not be read, with the reasons."""
    return [{"path": visible(p.path), "reason": p.reason} for p in results.problems]
