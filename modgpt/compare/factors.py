"""What the jobs of a comparison differ in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from math import isfinite
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from modgpt.config.compose import compose_job
from modgpt.config.search import CONFIG_DIR, options

Recipe = tuple[dict[str, Any], dict[str, str]]  # a configuration, and the options chosen in it

MOST_LEVELS = 12  # more values of one key are a search, not a factor of a designed experiment


@dataclass(frozen=True)
class Factor:
    """A group or key that the runs differ in.

    Attributes:
        name: `ffn`, `optimizer.lr`, …
        levels: its options among the runs, the baseline first.
        designed: few enough levels for a main effect; otherwise it only tells cells apart.
    """

    name: str
    levels: tuple[str, ...]
    designed: bool = True

    @property
    def baseline(self) -> str:
        return self.levels[0]


def find_factors(table: pd.DataFrame, columns: Iterable[str]) -> list[Factor]:
    """The columns that vary among the jobs; an empty cell is one that could not be read.

    What differs only because recipes do is no factor besides `experiment`.
    """
    factors = []
    recipe = defaults(shared_experiment(table))
    for column in columns:
        counts = table.loc[table[column] != "", column].value_counts()
        if len(counts) > 1 and not comes_with_recipe(table, column):
            base = baseline(column, counts, recipe)
            others = sorted((v for v in counts.index if v != base), key=natural)
            factors.append(Factor(column, (base, *others), len(counts) <= MOST_LEVELS))
    return factors


def find_budgets(table: pd.DataFrame, factors: list[Factor]) -> list[Factor]:
    """The factor `budget`, when runs that are otherwise alike saw different numbers of tokens.

    Two sweeps with different budgets would otherwise count as replicates of each other.
    """
    finished = table[table["status"] == "FINISHED"]
    names = [factor.name for factor in factors]
    budgets = finished.groupby(names or (lambda _: 0), dropna=False)["tokens_seen"].nunique()
    if (budgets <= 1).all():
        return []
    table["budget"] = [plain(tokens) for tokens in table["tokens_seen"]]
    found = finished["tokens_seen"].map(plain).value_counts()
    return [Factor("budget", tuple(sorted(found.index, key=natural)), len(found) <= MOST_LEVELS)]


def shared_experiment(table: pd.DataFrame) -> str | None:
    """The recipe that all the runs follow, where there is one: its values are their defaults."""
    if "experiment" not in table:
        return None
    names = set(table["experiment"]) - {""}
    return names.pop() if len(names) == 1 else None


def comes_with_recipe(table: pd.DataFrame, column: str) -> bool:
    """Whether every run has in this column what its recipe has, where the runs follow several."""
    if column == "experiment" or "experiment" not in table or table["experiment"].nunique() < 2:
        return False
    known = table[table[column] != ""]
    return all(
        level == recipe_level(column, experiment)
        for experiment, level in zip(known["experiment"], known[column], strict=True)
    )


def recipe_level(column: str, experiment: str) -> str:
    """The option or value that a recipe has in a column."""
    config, choices = defaults(experiment)
    return choices[column] if column in choices else value_at(column, config)


def baseline(column: str, counts: pd.Series, recipe: Recipe) -> str:
    """The default option where it was run, else the most frequent one."""
    config, choices = recipe
    default = choices[column] if column in choices else value_at(column, config)
    for candidate in (default, "default", "none"):
        if candidate in counts.index:
            return str(candidate)
    return min((v for v in counts.index if counts[v] == counts.max()), key=natural)


def natural(text: str) -> tuple[bool, float, str]:
    """Numbers by their size, before words."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def is_numeric(factor: Factor) -> bool:
    """Whether its options are numbers, which have an order."""
    return all(not natural(level)[0] for level in factor.levels)


def plain(value: object) -> str:
    """A value as text: numbers in their shortest form, so that 3e-3 and 0.003 are one level."""
    text = "null" if value is None else str(value).strip("'\"")
    if text.lower() in ("true", "false", "null"):
        return text.lower()
    try:
        number = float(text)
    except ValueError:
        return text
    if not isfinite(number):
        return text
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)


@cache
def defaults(experiment: str | None = None) -> Recipe:
    """The configuration without further overrides, and the option it has in every group."""
    job = compose_job([f"experiment={experiment}"] if experiment in options("experiment") else [])
    values = OmegaConf.to_container(job.config, throw_on_missing=False)
    assert isinstance(values, dict)
    return {str(k): v for k, v in values.items()}, job.choices


def value_at(key: str, config: dict[str, Any]) -> str:
    """The value of a key in a configuration; of a group at another place, `norm@attention.qk_norm`, the
    option whose contents stand there."""
    group, at, place = key.partition("@")
    if not at:
        return plain(select(config, key))
    node = select(config, place)
    if not isinstance(node, dict):
        return "none"
    made_by = (o for o in options(group) if target_of(group, o) == node.get("_target_"))
    return next(made_by, "default")


@cache
def target_of(group: str, option: str) -> object:
    return OmegaConf.select(OmegaConf.load(CONFIG_DIR / group / f"{option}.yaml"), "_target_")


def select(config: object, key: str) -> object:
    """The value at a dotted key, None where there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config
