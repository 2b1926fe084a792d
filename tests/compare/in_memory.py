"""Results without folders, for the statistics, and two ways to look at them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from modgpt.compare.columns import ACCURACY, COSTS, LOSS
from modgpt.compare.factors import Factor
from modgpt.compare.load import Results
from modgpt.compare.statistics import Statistics
from tests.compare.synthetic import OPTIONS, Choices

Runs = list[tuple[Choices, int, float]]
SMALL = {"attention": OPTIONS["attention"], "pos": OPTIONS["pos"]}


def results_of(runs: Iterable[tuple[Choices, int, float]], status: str = "finished") -> Results:
    """Results without folders."""
    rows = [
        {"run": f"r{i}", "status": status, "reason": "", **choices, "seed": seed, LOSS: loss}
        | {"started_at": f"{i:06d}", "tokens_seen": 1e6, "match": None, "parameters": 1.0}
        | {cost: 100.0 for cost in COSTS}
        | {ACCURACY: float("nan")}
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


def effect(statistics: Statistics, factor: str, option: str) -> pd.Series:
    table = statistics.effects
    return table[(table["factor"] == factor) & (table["option"] == option)].iloc[0]


def dropped(runs: Runs, share: float, rng: int = 0) -> Runs:
    """The runs that are left when some have failed."""
    random = np.random.default_rng(rng)
    return [run for run in runs if random.random() > share]


def lstsq(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Design and the projection onto it."""
    design = np.column_stack(columns)
    return design, design @ np.linalg.pinv(design)


def dummies(values: Iterable[object]) -> np.ndarray:
    values = list(values)
    return np.array([[v == level for level in dict.fromkeys(values)] for v in values], dtype=float)
