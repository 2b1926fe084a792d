"""What every option changes: the loss with its verdict, solved tasks, and the costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from modgpt.compare.columns import ACCURACY, COSTS
from modgpt.statistics.differences import Difference
from modgpt.statistics.pairs import Factor
from modgpt.statistics.solved import Solved
from modgpt.statistics.verdict import BASELINE


def effect_table(
    frame: pd.DataFrame,
    factors: Sequence[Factor],
    names: Sequence[str],
    differences: Sequence[Difference],
    solved: Sequence[Solved],
) -> pd.DataFrame:
    """A row per option: its difference from the baseline, its verdict, and the ratios of its costs.

    A task that runs either solve or do not is judged by the number of runs that solved it: its losses
    have two peaks, and their mean describes no run.
    """
    losses = {(d.factor, d.option): d for d in differences}
    counts = {(s.factor, s.option): s for s in solved}
    rows = []
    for factor in factors:
        for option in factor.levels:
            key = (factor.name, option)
            row = {"factor": factor.name, "option": option, "baseline": option == factor.baseline}
            row["runs"] = int((frame[factor.name] == option).sum())
            row |= of_loss(losses.get(key)) | of_task(counts.get(key))
            row |= cost_ratios(frame, factor, option, [n for n in names if n != factor.name])
            rows.append(row)
    return pd.DataFrame(rows)


def of_loss(found: Difference | None) -> dict[str, object]:
    """The columns about the loss; those of a baseline are empty."""
    nothing = {"difference": np.nan, "low": np.nan, "high": np.nan, "error": ""}
    if found is None:
        return nothing | {"verdict": BASELINE, "needs": np.nan, "contexts": 0, "won": 0}
    return {
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "error": found.error,
        "verdict": found.verdict,
        "needs": np.nan if found.needs is None else found.needs,
        "contexts": found.contexts,
        "won": found.won,
    }


def of_task(found: Solved | None) -> dict[str, object]:
    """The columns about solved tasks, which replace the verdict on the loss; empty for other data."""
    if found is None:
        return {}
    return {
        "low": np.nan,
        "high": np.nan,
        "error": "counts",
        "verdict": found.verdict,
        "needs": np.nan,
        "solved": f"{found.solved} of {found.runs}",
        "share_low": found.low,
        "share_high": found.high,
        "base_solved": f"{found.base_solved} of {found.base_runs}",
        "p": found.p,
    }


def cost_ratios(
    frame: pd.DataFrame, factor: Factor, option: str, others: Sequence[str]
) -> dict[str, float]:
    """The costs of an option relative to its baseline: geometric means over pairs alike in all else."""
    if option == factor.baseline:
        return {f"{cost}_ratio": np.nan for cost in COSTS}
    means = frame.groupby([factor.name, *others])[list(COSTS)].mean()
    levels = means.index.get_level_values(0)
    if others:
        side, base = (means.xs(level, level=0) for level in (option, factor.baseline))
    else:
        side, base = means[levels == option], means[levels == factor.baseline]
        side, base = side.reset_index(drop=True), base.reset_index(drop=True)
    ratios = np.log(side / base).mean()  # NaN where no pair knows the cost
    return {f"{cost}_ratio": float(np.exp(ratios[cost])) for cost in COSTS}


def has_accuracy(frame: pd.DataFrame) -> bool:
    """Whether the runs are of a task with answers."""
    return bool(len(frame)) and bool(frame[ACCURACY].notna().all())
