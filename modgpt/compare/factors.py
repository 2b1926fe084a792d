"""What the runs of a comparison differ in."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from modgpt.compare.columns import FINISHED
from modgpt.compare.recipes import plain, recipe_level
from modgpt.statistics.pairs import Factor

MOST_LEVELS = 12  # more values of one key are a search, not a factor of a designed experiment


def find_factors(table: pd.DataFrame, columns: Iterable[str]) -> list[Factor]:
    """The columns that vary among the runs.

    A column that varies only because the experiments differ is not a factor beside `experiment`.
    """
    factors = []
    experiment = shared_experiment(table)
    for column in columns:
        counts = table[column].value_counts()
        if len(counts) > 1 and not comes_with_experiment(table, column):
            base = baseline(recipe_level(column, experiment), counts)
            others = sorted((v for v in counts.index if v != base), key=natural)
            factors.append(Factor(column, (base, *others), len(counts) <= MOST_LEVELS))
    return factors


def find_budgets(table: pd.DataFrame, factors: list[Factor]) -> list[Factor]:
    """The factor `budget`, when runs that are otherwise alike saw different numbers of tokens.

    Without it, two sweeps with different budgets would count as replicates of each other.
    """
    finished = table[table["status"] == FINISHED]
    names = [factor.name for factor in factors]
    budgets = finished.groupby(names or (lambda _: 0), dropna=False)["tokens_seen"].nunique()
    if (budgets <= 1).all():
        return []
    table["budget"] = [plain(tokens) for tokens in table["tokens_seen"]]
    found = finished["tokens_seen"].map(plain).value_counts()
    return [Factor("budget", tuple(sorted(found.index, key=natural)), len(found) <= MOST_LEVELS)]


def shared_experiment(table: pd.DataFrame) -> str | None:
    """The experiment that all runs follow, if there is one: its values are their defaults."""
    if "experiment" not in table:
        return None
    names = set(table["experiment"])
    return names.pop() if len(names) == 1 else None


def comes_with_experiment(table: pd.DataFrame, column: str) -> bool:
    """Whether several experiments are compared and each run has here what its experiment sets."""
    if column == "experiment" or "experiment" not in table or table["experiment"].nunique() < 2:
        return False
    pairs = zip(table["experiment"], table[column], strict=True)
    return all(level == recipe_level(column, experiment) for experiment, level in pairs)


def baseline(default: str, counts: pd.Series) -> str:
    """The default option if it was run, else the most frequent one."""
    for candidate in (default, "default", "none"):
        if candidate in counts.index:
            return str(candidate)
    return min((v for v in counts.index if counts[v] == counts.max()), key=natural)


def natural(text: str) -> tuple[bool, float, str]:
    """A key for sorting: numbers by their size, before words."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def is_numeric(factor: Factor) -> bool:
    """Whether all options are numbers, which have an order."""
    return all(not natural(level)[0] for level in factor.levels)
