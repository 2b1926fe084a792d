"""What the runs of a comparison differ in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from modgpt.compare.columns import FINISHED
from modgpt.compare.recipes import plain, recipe_level
from modgpt.config.keys import is_designed
from modgpt.errors import UserError
from modgpt.statistics.pairs import Factor

if TYPE_CHECKING:
    from modgpt.compare.load import Results


def find_factors(table: pd.DataFrame, columns: Iterable[str]) -> list[Factor]:
    """The columns that vary among the runs.

    A column that varies only because the experiments differ is not a factor beside `experiment`.
    """
    factors = []
    experiment = shared_experiment(table)
    for column in columns:
        found = table[column].dropna().unique()
        if len(found) > 1 and not comes_with_experiment(table, column):
            base = baseline(table, column, recipe_level(column, experiment))
            others = sorted((str(v) for v in found if v != base), key=natural)
            factors.append(Factor(column, (base, *others), is_designed(column, len(found))))
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
    return [Factor("budget", tuple(sorted(found.index, key=natural)), is_designed("budget", len(found)))]


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


def baseline(table: pd.DataFrame, column: str, default: str) -> str:
    """The configured option if it was run, else the option of the run that started first."""
    if (table[column] == default).any():
        return default
    rows = table.dropna(subset=column).sort_values("started_at", kind="stable", na_position="last")
    return str(rows[column].iloc[0])


def with_baselines(results: Results, chosen: Sequence[str]) -> Results:
    """The results with other baselines.

    Args:
        results: of some runs.
        chosen: `factor=option`, such as `ffn=moe`; each puts this option first among its factor's.

    Raises:
        UserError: the runs do not differ in the factor, no run with the option has finished, or a factor
            is named twice.
    """
    options = dict[str, str]()
    by_name = {factor.name: factor for factor in results.factors}
    for text in chosen:
        name, equals, option = text.partition("=")
        option = plain(option)
        factor = by_name.get(name)
        if not equals:
            raise UserError(f"--baseline {text}: write FACTOR=OPTION, such as ffn=moe")
        if factor is None:
            differ = ", ".join(by_name) or "nothing but the seed"
            raise UserError(f"--baseline {text}: the runs do not differ in {name}, but in {differ}")
        finished = set(results.finished[name])
        if option not in finished:
            known = ", ".join(level for level in factor.levels if level in finished) or "none"
            raise UserError(f"--baseline {text}: no finished run has it; options that finished: {known}")
        if options.setdefault(name, option) != option:
            raise UserError(f"--baseline {text}: {name}={options[name]} is the baseline already")
    factors = [
        replace(f, levels=(options[f.name], *(v for v in f.levels if v != options[f.name])))
        if f.name in options
        else f
        for f in results.factors
    ]
    return replace(results, factors=factors)


def natural(text: str) -> tuple[bool, float, str]:
    """A key for sorting: numbers by their size, before words."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def is_numeric(factor: Factor) -> bool:
    """Whether all options are numbers, which have an order."""
    return all(not natural(level)[0] for level in factor.levels)
