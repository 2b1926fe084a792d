"""A comparison in which every combination has hyperparameters of its own, chosen afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import pandas as pd

from modgpt.compare.factors import is_numeric, natural
from modgpt.compare.load import FINISHED, LOSS, Results
from modgpt.errors import UserError
from modgpt.sweep.selection import choose


def best_of(results: Results, keys: Sequence[str]) -> Results:
    """Each combination with its best values of some keys alone, which are then no factors any more.

    The best have the lowest mean final loss over the very seeds that are compared. What has finished
    with other values is left out, and combinations that have not finished every seed with any.

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
            raise UserError(f"--best {key}: the runs do not differ in that, but in {differ}")
    others = [factor for factor in results.factors if factor.name not in keys]
    ordered = all(is_numeric(factor) for factor in results.factors if factor.name in keys)
    readable = results.table[(results.table[list(keys)] != "").all(axis=1)]
    kept, cells = results.table["status"] != FINISHED, []
    for overrides, rows in combinations(readable, [factor.name for factor in others]):
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
    """The runs of every combination of some columns, with what makes it; numbers by their size."""
    if not names:
        return [([], table)]
    groups = table.groupby(list(names))
    ordered = sorted(groups, key=lambda group: [natural(str(value)) for value in group[0]])
    return [([f"{n}={v}" for n, v in zip(names, values, strict=True)], rows) for values, rows in ordered]


def mean_loss(rows: pd.DataFrame, seeds: int) -> float | None:
    """The mean final loss, None where fewer than so many seeds have finished."""
    finished = rows[rows["status"] == FINISHED]
    by_seed = finished.groupby("seed", dropna=False)[LOSS].mean()
    return float(by_seed.mean()) if len(by_seed) == seeds else None
