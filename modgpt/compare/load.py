"""The runs below some folders as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import pandas as pd

from modgpt.compare.columns import (
    ACCURACY,
    CONDITIONS,
    FINISHED,
    HIDDEN,
    LOSS,
    NOT_FACTORS,
    NUMBERS,
    OUTSIDE_DESIGN,
)
from modgpt.compare.factors import Factor, find_budgets, find_factors
from modgpt.compare.folders import Problem, names_of, read_runs
from modgpt.compare.looks import Looks, read_looks
from modgpt.compare.recipes import select
from modgpt.compare.run_row import RunRow, read_run_row
from modgpt.compare.tunings import read_tunings
from modgpt.compare.units import PER_TOKEN, in_unit, unit_of
from modgpt.config.keys import group_order

__all__ = ["ACCURACY", "LOSS", "Results", "load_results", "tokens_per_step"]


@dataclass(frozen=True)
class Results:
    """The runs and what they differ in.

    Attributes:
        table: a row per run: run, status, reason, a column per group and per overridden key, seed (a
            label, `seed_label`), the numbers and the conditions.
        factors: the columns that vary, groups of the model first.
        folders: where the runs were looked for.
        tunings: how hyperparameters were chosen, the contents of the `tuning.json` beside runs.
        problems: what was left out because it could not be read.
        looks: how often a sweep that adds seeds has looked at its results.
        unit: of all losses.
    """

    table: pd.DataFrame
    factors: list[Factor]
    folders: list[Path]
    tunings: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    looks: Looks = field(default_factory=Looks)
    unit: str = PER_TOKEN

    @property
    def tuned(self) -> set[str]:
        """The keys whose value was chosen for each combination, which are no factors."""
        return {key for tuning in self.tunings for key in tuning["keys"]}

    @property
    def finished(self) -> pd.DataFrame:
        """The rows that count: finished, with a finite final loss."""
        return self.table[self.table["status"] == FINISHED]


def load_results(folders: Sequence[Path]) -> Results:
    """Read every run below the folders; damaged runs are listed in `problems`.

    Raises:
        UserError: a folder does not exist, or no run can be read.
    """
    runs, problems = read_runs(folders, read_run_row)
    tunings, damaged = read_tunings(run.path for run in runs)
    looks, unread = read_looks(run.path for run in runs)
    results = assemble(runs, list(folders), tunings, problems + damaged + unread)
    unit = unit_of(results.table)
    return replace(results, looks=looks, unit=unit, table=in_unit(results.table, unit))


def assemble(
    runs: list[RunRow], folders: list[Path], tunings: list[dict[str, Any]], problems: list[Problem]
) -> Results:
    """The table of the runs, and the factors of those that belong to the design."""
    design = [run for run in runs if run.status not in OUTSIDE_DESIGN]
    groups = sorted({group for run in design or runs for group in run.choices}, key=group_order)
    keys = overridden_keys(design)
    names = names_of([run.path for run in runs])
    table = pd.DataFrame(row(run, name, groups, keys) for run, name in zip(runs, names, strict=True))
    table = table.astype(dict.fromkeys(NUMBERS, "float64") | {"threads": "Int64"})
    not_factors = NOT_FACTORS | {key for tuning in tunings for key in tuning["keys"]}
    inside = table[~table["status"].isin(OUTSIDE_DESIGN)]
    factors = find_factors(inside, [name for name in (*groups, *keys) if name not in not_factors])
    factors += find_factors(inside, ["match"])
    factors += find_budgets(table, factors)
    return Results(table, factors, folders, tunings, problems)


def row(run: RunRow, name: str, groups: list[str], keys: list[str]) -> dict[str, Any]:
    """A run as a row of the table."""
    return (
        {"run": name, "status": run.status, "reason": run.reason}
        | {group: run.choice(group) for group in groups}
        | {key: run.value(key) for key in keys}
        | {"seed": run.seed}
        | run.numbers
        | {name: run.conditions.get(name) for name in (*CONDITIONS, *HIDDEN)}
        | {"path": str(run.path), "tokens_per_step": tokens_per_step(run)}
    )


def overridden_keys(runs: list[RunRow]) -> list[str]:
    """The keys that some runs override and that are no choice in a group already."""
    groups = {group for run in runs for group in run.choices} | NOT_FACTORS
    keys = {key for run in runs for key in run.given}
    return sorted(key for key in keys - groups if not key.startswith("hydra"))


def tokens_per_step(run: RunRow) -> float | None:
    """Tokens that a run sees in a step: counted, or as configured where the run has not finished."""
    steps, tokens = run.numbers["final_step"], run.numbers["tokens_seen"]
    if run.status == FINISHED and steps and tokens:
        return tokens / steps
    keys = ("data.batch_size", "data.block_size", "trainer.accumulate_grad_batches")
    found = [select(run.config, key) for key in keys]
    sizes = [size for size in found if isinstance(size, int) and size > 0]
    return float(prod(sizes)) if len(sizes) == len(keys) else None
