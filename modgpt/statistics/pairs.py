"""Which cells to compare: an option and its baseline in the same context.

A *cell* is a combination of choices, run with some seeds. The *context* of a factor is the choices in
all other factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from modgpt.statistics.noise import CELL, LOSS

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Factor:
    """A group or key in which the runs differ.

    Attributes:
        name: `ffn`, `optimizer.lr`, …
        levels: its options among the runs, the baseline first.
        designed: it has few enough levels to compare; otherwise it only distinguishes combinations.
    """

    name: str
    levels: tuple[str, ...]
    designed: bool = True

    @property
    def baseline(self) -> str:
        return self.levels[0]


@dataclass(frozen=True)
class Cell:
    """The runs of one combination: its choices, their number and their mean loss."""

    index: int
    choices: dict[str, str]
    n: int
    mean: float


@dataclass(frozen=True)
class Pair:
    """An option and its baseline in one context."""

    option: Cell
    base: Cell

    @property
    def difference(self) -> float:
        """Loss of the option minus loss of the baseline."""
        return self.option.mean - self.base.mean


@dataclass(frozen=True)
class Pairs:
    """An option beside its baseline, in every context in which both were run."""

    factor: Factor
    option: str
    pairs: tuple[Pair, ...]

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def values(self) -> Vector:
        """The difference in every context."""
        return np.array([pair.difference for pair in self.pairs])


def find_cells(frame: pd.DataFrame, names: Sequence[str]) -> list[Cell]:
    """The cells of some runs.

    Args:
        frame: a row per run, with `cell`, the final loss and the columns `names`.
        names: of all factors.
    """
    losses, choices = dict[int, list[float]](), dict[int, dict[str, str]]()
    columns = [frame[name].tolist() for name in names]
    for i, (cell, loss) in enumerate(zip(frame[CELL].tolist(), frame[LOSS].tolist(), strict=True)):
        if cell not in losses:
            choices[cell] = {name: column[i] for name, column in zip(names, columns, strict=True)}
        losses.setdefault(cell, []).append(loss)
    return [Cell(i, choices[i], len(losses[i]), fmean(losses[i])) for i in sorted(losses)]


def find_pairs(cells: Sequence[Cell], factors: Sequence[Factor]) -> list[Pairs]:
    """Every option but the baselines, beside the baseline of its factor."""
    found = []
    for factor in factors:
        by_context = dict[tuple[str, ...], dict[str, Cell]]()
        for cell in cells:
            context = tuple(level for name, level in cell.choices.items() if name != factor.name)
            by_context.setdefault(context, {})[cell.choices[factor.name]] = cell
        for option in factor.levels[1:]:
            pairs = tuple(
                Pair(at[option], at[factor.baseline])
                for at in by_context.values()
                if option in at and factor.baseline in at
            )
            found.append(Pairs(factor, option, pairs))
    return found
