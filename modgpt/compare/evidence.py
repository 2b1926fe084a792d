"""What a comparison rests on, in a line: budget, seeds, tuning, data, sizes, hardware."""

from __future__ import annotations

import pandas as pd

from modgpt.compare.analysis import Statistics
from modgpt.compare.counting import several
from modgpt.compare.load import Results


def evidence(results: Results, statistics: Statistics) -> list[tuple[str, str]]:
    """Pairs of a name and what the finished runs have there; empty without a finished run."""
    rows = results.finished
    if rows.empty:
        return []
    per_parameter = rows["tokens_seen"] / rows["parameters"]
    rates = "tuned for each combination" if "optimizer.lr" in results.tuned else "one for all"
    if any(factor.name == "optimizer.lr" for factor in results.factors):
        rates = "one of the factors"
    threads = sorted({int(n) for n in rows["threads"].dropna()})
    seeds = statistics.cells["n"]
    return [
        ("tokens per parameter", span(per_parameter, ".2g")),
        ("seeds per combination", span(seeds, ".0f")),
        ("learning rate", rates),
        ("corpora", str(rows["corpus_sha256"].nunique())),
        ("parameters", span(rows["parameters"], ",.0f")),
        ("hardware", hardware(rows, threads)),
    ]


def span(numbers: pd.Series, form: str) -> str:
    """The smallest and the largest of some numbers, or the one that all are."""
    known = numbers.dropna()
    if known.empty:
        return "unknown"
    low, high = format(float(known.min()), form), format(float(known.max()), form)
    return low if low == high else f"{low} to {high}"


def hardware(rows: pd.DataFrame, threads: list[int]) -> str:
    """The devices, precisions and threads of the runs."""
    parts = [", ".join(sorted({str(x) for x in rows[c].dropna()})) for c in ("device", "precision")]
    if threads:
        parts.append(several(threads[0], "thread") if len(threads) == 1 else "various threads")
    return ", ".join(part for part in parts if part) or "unknown"
