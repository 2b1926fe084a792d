"""Tasks that a run either solves or does not: counts, exact intervals and exact tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from scipy import stats

from modgpt.statistics.critical import sidak
from modgpt.statistics.noise import CELL
from modgpt.statistics.pairs import Factor, find_cells, find_pairs
from modgpt.statistics.verdict import BETTER, CONFIDENCE, OPEN, WORSE

SOLVED = 0.99  # validation accuracy from which on a task counts as solved


@dataclass(frozen=True)
class Solved:
    """How many runs of an option solved the task, beside those of its baseline in the same contexts.

    Attributes:
        solved, runs: of the option.
        low, high: the exact 95 % interval of its share (Clopper and Pearson 1934).
        base_solved, base_runs: of the baseline.
        p: of Fisher's exact test that both shares are equal.
        verdict: better, worse or cannot tell; all verdicts of a comparison hold together.
    """

    factor: str
    option: str
    baseline: str
    solved: int
    runs: int
    low: float
    high: float
    base_solved: int
    base_runs: int
    p: float
    verdict: str


@dataclass(frozen=True)
class TaskCount:
    """How many runs of one option solved one task, with the exact 95 % interval of the share."""

    task: str
    factor: str
    option: str
    solved: int
    runs: int
    low: float
    high: float


def task_counts(
    frame: pd.DataFrame, task: str, factors: Sequence[Factor], accuracy: str
) -> list[TaskCount]:
    """The counts of every option in every task, over all other choices.

    Args:
        frame: a row per run.
        task: the column that names the tasks.
        factors: whose options are counted.
        accuracy: the column with the validation accuracy.
    """
    found = []
    for factor in factors:
        counts = (
            (frame[accuracy] >= SOLVED).groupby([frame[task], frame[factor.name]]).agg(["sum", "size"])
        )
        for (name, option), (k, n) in zip(counts.index, counts.to_numpy().tolist(), strict=True):
            found.append(TaskCount(name, factor.name, option, k, n, *exact_interval(k, n)))
    return found


def exact_interval(k: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of which k of n were counted (Clopper and Pearson 1934)."""
    share = stats.binomtest(k, n).proportion_ci(CONFIDENCE, method="exact")
    return float(share.low), float(share.high)


def solved_counts(
    frame: pd.DataFrame,
    factors: Sequence[Factor],
    names: Sequence[str],
    accuracy: str,
    confidence: float = CONFIDENCE,
) -> list[Solved]:
    """The counts of every option and of its baseline, over the contexts in which both were run.

    Args:
        frame: a row per run.
        factors: whose options are compared.
        names: of all factors.
        accuracy: the column with the validation accuracy.
        confidence: of all verdicts together.
    """
    all_pairs = [pairs for pairs in find_pairs(find_cells(frame, names), factors) if len(pairs)]
    level = 1 - sidak(confidence, max(1, len(all_pairs)))
    solved = (frame[accuracy] >= SOLVED).groupby(frame[CELL])
    successes, runs = solved.sum(), solved.size()
    found = []
    for pairs in all_pairs:
        own = [pair.option.index for pair in pairs.pairs]
        base = [pair.base.index for pair in pairs.pairs]
        k, n, base_k, base_n = (int(x[c].sum()) for c in (own, base) for x in (successes, runs))
        p = float(stats.fisher_exact([[k, n - k], [base_k, base_n - base_k]]).pvalue)  # pyright: ignore
        said = OPEN if p >= level else BETTER if k / n > base_k / base_n else WORSE
        found.append(
            Solved(
                *(pairs.factor.name, pairs.option, pairs.factor.baseline),
                *(k, n, *exact_interval(k, n), base_k, base_n, p, said),
            )
        )
    return found
