"""Results without folders, for the statistics."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from modgpt.compare.columns import ACCURACY, COSTS, LOSS
from modgpt.compare.factors import Factor
from modgpt.compare.load import Results
from tests.compare.synthetic import OPTIONS, Choices


def results_of(runs: Iterable[tuple[Choices, int, float]], status: str = "finished") -> Results:
    """Results without folders."""
    rows = [
        {"run": f"r{i}", "status": status, "reason": "", **choices, "seed": seed, LOSS: loss}
        | {"started_at": f"{i:06d}", "tokens_seen": 1e6, "match": None, "parameters": 1.0}
        | {cost: 100.0 for cost in COSTS}
        | {ACCURACY: float("nan"), "tokens_per_byte": 1.0}
        | {c: "same" for c in ("device", "precision", "threads", "git_revision", "corpus_sha256")}
        for i, (choices, seed, loss) in enumerate(runs)
    ]
    table = pd.DataFrame(rows)
    groups = [g for g in rows[0] if g in OPTIONS or g in ("optimizer.lr", "norm2")]
    factors = []
    for group in groups:
        found = list(dict.fromkeys(table[group]))
        levels = [*(o for o in OPTIONS.get(group, ()) if o in found), *found]
        if len(found) > 1:
            factors.append(Factor(group, tuple(dict.fromkeys(levels)), len(found) <= 12))
    return Results(table, factors, [Path("sweep")])
