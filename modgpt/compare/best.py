"""A comparison in which every combination has its own best value of some keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import pandas as pd

from modgpt.compare.columns import FINISHED, LOSS, OUTSIDE_DESIGN
from modgpt.compare.factors import is_numeric, natural
from modgpt.compare.load import Results
from modgpt.errors import UserError
from modgpt.sweep.selection import choose


def best_of(results: Results, keys: Sequence[str]) -> Results:
    """The results with only the best value of some keys for each combination.

    The best value has the lowest mean final loss over the very seeds that are compared. Runs that
    finished with other values are left out, and so are combinations that finished every seed with no
    value.

    The keys are no factors then.

    Args:
        results: of runs that differ in these keys.
        keys: names of factors, such as `optimizer.lr`.

    Raises:
        UserError: a key is no factor, or no combination is left.
    """
    names = [factor.name for factor in results.factors]
    for key in keys:
        if key not in names:
            differ = ", ".join(names) or "nothing but the seed"
            raise UserError(f"--best {key}: the runs do not differ in this key; they differ in {differ}")
    others = [factor for factor in results.factors if factor.name not in keys]
    ordered = all(is_numeric(factor) for factor in results.factors if factor.name in keys)
    design = results.table[~results.table["status"].isin(OUTSIDE_DESIGN)]
    kept, cells = results.table["status"] != FINISHED, []
    for overrides, rows in combinations(design, [factor.name for factor in others]):
        seeds = rows["seed"].nunique(dropna=False)
        tried = {" ".join(choices): group for choices, group in combinations(rows, keys)}
        losses = {name: mean_loss(group, seeds) for name, group in tried.items()}
        cells.append(cell := choose(overrides, losses, ordered))
        if cell.chosen is not None:
            kept[tried[cell.chosen].index] = True
    if all(cell.chosen is None for cell in cells):
        raise UserError(f"--best {' '.join(keys)}: nothing has finished with every seed yet")
    chosen = {"keys": list(keys), "seeds": [], "cells": [asdict(cell) for cell in cells]}
    return replace(
        results, table=results.table[kept], factors=others, tunings=[*results.tunings, chosen]
    )


def combinations(table: pd.DataFrame, names: Sequence[str]) -> list[tuple[list[str], pd.DataFrame]]:
    """Every combination of the values of some columns, with its runs; numbers are sorted by size."""
    if not names:
        return [([], table)]
    groups = table.groupby(list(names))
    ordered = sorted(groups, key=lambda group: [natural(str(value)) for value in group[0]])
    return [([f"{n}={v}" for n, v in zip(names, values, strict=True)], rows) for values, rows in ordered]


def mean_loss(rows: pd.DataFrame, seeds: int) -> float | None:
    """The mean final loss; None where fewer than `seeds` seeds have finished."""
    finished = rows[rows["status"] == FINISHED]
    by_seed = finished.groupby("seed", dropna=False)[LOSS].mean()
    return float(by_seed.mean()) if len(by_seed) == seeds else None
