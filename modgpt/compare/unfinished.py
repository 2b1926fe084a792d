"""The runs that do not count in the statistics, and why; many with the same reason are one entry."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from modgpt.compare.columns import FINISHED, STATUSES
from modgpt.compare.load import Results


@dataclass(frozen=True)
class Unfinished:
    """Runs with the same status and reason.

    Attributes:
        status: one of `STATUSES`.
        reason: from their records; empty where they have none.
        runs: their names.
        steps: their last steps, where known.
        losses: their latest losses, where known; partial results are here and nowhere else.
    """

    status: str
    reason: str
    runs: list[str]
    steps: list[float]
    losses: list[float]

    @property
    def count(self) -> str:
        """`1 failed job`, `12 skipped jobs`."""
        return f"{len(self.runs)} {self.status} {'job' if len(self.runs) == 1 else 'jobs'}"

    @property
    def sentence(self) -> str:
        """One line for a terminal or a list."""
        names = self.runs[0] if len(self.runs) == 1 else f"{self.runs[0]} and others"
        at = f" at step {self.steps[0]:,.0f}" if len(self.runs) == 1 and self.steps else ""
        loss = f", latest loss {self.losses[0]:.4f}" if len(self.runs) == 1 and self.losses else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.count}{at}{loss}{reason} ({names})"


def unfinished(results: Results) -> list[Unfinished]:
    """The runs that have no final loss, grouped by status and reason, diverged and failed ones first."""
    rows = results.table[results.table["status"] != FINISHED]
    order = rows["status"].map(STATUSES.index)
    rows = rows.assign(order=order).sort_values("order", kind="stable")
    return [group(g) for _, g in rows.groupby(["order", "reason"], sort=False)]


def group(rows: pd.DataFrame) -> Unfinished:
    """The entry of some runs with the same status and reason."""
    return Unfinished(
        status=str(rows["status"].iloc[0]),
        reason=str(rows["reason"].iloc[0]),
        runs=[str(name) for name in rows["run"]],
        steps=[float(step) for step in rows["final_step"].dropna()],
        losses=[float(loss) for loss in rows["latest_loss"].dropna()],
    )
