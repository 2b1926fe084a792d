"""The verdicts of one look of a sweep that adds seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.markup import escape
from rich.table import Table

from modgpt.config.compose import compose_job
from modgpt.config.keys import SEEDS, is_designed
from modgpt.config.overrides import key_of, parse_one
from modgpt.config.seeds import seed_in_name
from modgpt.statistics.differences import Difference
from modgpt.statistics.looks import options_of
from modgpt.statistics.noise import CELL, LOSS
from modgpt.statistics.pairs import Factor, find_cells, find_pairs
from modgpt.statistics.wording import verdict_words
from modgpt.sweep.plan import Planned
from modgpt.sweep.progress import latest

NOT_FACTORS = (*SEEDS, "sweep_name", "sweep_dir", "sweep", "retry_failed")


@dataclass(frozen=True)
class Finished:
    """The finished jobs of a sweep as the statistics read them.

    Attributes:
        frame: a row per job: its choices, `cell`, `seed` and the final loss.
        factors: the keys in which the jobs differ, the baseline of each first.
        jobs: the jobs, in the order of the rows.
        unit: of the losses: nats per token, or per byte where the tokenizers differ.
    """

    frame: pd.DataFrame
    factors: list[Factor]
    jobs: list[Planned]
    unit: str = "nats per token"

    @property
    def names(self) -> list[str]:
        return [factor.name for factor in self.factors]


def finished_jobs(jobs: Sequence[Planned]) -> Finished:
    """Those of the jobs of a sweep that are finished, and what they differ in."""
    rows, kept, per_byte = [], [], []
    for entry in jobs:
        record = latest(entry)
        if record is not None and record.finished:
            choices = choices_of(entry.job.overrides)
            rows.append(choices | {"seed": seed_in_name(entry.job.config), LOSS: record.final_val_loss})
            kept.append(entry)
            per_byte.append(record.tokens_per_byte)
    frame = pd.DataFrame(rows, columns=None if rows else ["seed", LOSS])
    # Losses per token of different tokenizers do not compare.
    by_bytes = len(set(per_byte)) > 1 and None not in per_byte
    if by_bytes:
        frame[LOSS] *= np.array(per_byte)
    return Finished(*design(frame), kept, "nats per byte" if by_bytes else "nats per token")


def compared_for(combinations: Sequence[Sequence[str]]) -> list[int]:
    """For how many options each combination of overrides is compared; 1 where for none."""
    planned = pd.DataFrame([choices_of(c) for c in combinations]).assign(seed="", **{LOSS: 0.0})
    frame, factors = design(planned)
    names = [factor.name for factor in factors]
    counted = options_of(find_pairs(find_cells(frame, names), factors))
    return [counted.get(cell, 1) for cell in frame[CELL].tolist()]


def design(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[Factor]]:
    """The rows with their cells, and the columns in which they differ."""
    keys = [key for key in frame.columns if key not in ("seed", LOSS) and frame[key].nunique() > 1]
    defaults = compose_job([]).choices
    factors = []
    for key in keys:
        levels = [str(level) for level in dict.fromkeys(frame[key])]
        first = defaults[key] if defaults.get(key) in levels else levels[0]
        ordered = (first, *(level for level in levels if level != first))
        factors.append(Factor(key, ordered, is_designed(key, len(levels))))
    cells = frame.groupby(keys, sort=False).ngroup() if keys else 0
    return frame.assign(**{CELL: cells}), factors


def choices_of(overrides: Sequence[str]) -> dict[str, str]:
    """What the overrides set, but for the seeds and the names of a sweep."""
    values = {key_of(override): value_of(override) for override in overrides}
    return {key: value for key, value in values.items() if key not in NOT_FACTORS}


def value_of(override: str) -> str:
    """The value that an override sets, as text."""
    return str(parse_one(override).get_value_element_as_str())


def verdict_table(judged: Sequence[Difference], delta: float, unit: str) -> Table:
    """The differences and verdicts as a table."""
    table = Table(title=f"final loss against the baseline, {unit}", header_style="bold")
    several = any(found.contexts > 1 for found in judged)
    for name in ("factor", "option", "against"):
        table.add_column(name, overflow="fold")
    table.add_column("difference", justify="right")
    table.add_column("interval", justify="right")
    if several:
        table.add_column("lower in", justify="right")
    table.add_column("verdict")
    for found in judged:
        interval = f"{found.low:+.3f} to {found.high:+.3f}" if np.isfinite(found.low) else ""
        won = [f"{found.won} of {found.contexts}"] if several else []
        table.add_row(
            *map(escape, (found.factor, found.option, found.baseline)),
            "" if np.isnan(found.value) else f"{found.value:+.3f}",
            interval,
            *won,
            verdict_words(found, delta),
        )
    return table
