"""One sentence per factor: what matters, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from modgpt.compare.counting import several
from modgpt.compare.statistics import Statistics
from modgpt.statistics.verdict import BETTER, OPEN, SAME, WORSE


@dataclass(frozen=True)
class Finding:
    """What the runs say about one factor.

    Attributes:
        factor: its name.
        size: the largest decided difference in nats, by which the findings are ordered; 0 without one.
        text: the rest of the sentence that begins with the factor.
    """

    factor: str
    size: float
    text: str


def findings(statistics: Statistics) -> list[Finding]:
    """A finding per factor, the one that matters most first."""
    if not len(statistics.effects):
        return []
    found = [
        Finding(str(factor), size(options), sentence(options, statistics))
        for factor, options in statistics.effects.groupby("factor", sort=False)
    ]
    return sorted(found, key=lambda finding: -finding.size)


def size(options: pd.DataFrame) -> float:
    """The largest difference with a verdict better or worse."""
    decided = options[options["verdict"].isin([BETTER, WORSE])]["difference"].abs()
    return float(decided.max()) if len(decided) and np.isfinite(decided.max()) else 0.0


def sentence(options: pd.DataFrame, statistics: Statistics) -> str:
    """The verdicts on one factor's options, grouped: ahead, behind, the same, depends, open."""
    baseline = str(options.loc[options["baseline"], "option"].iloc[0])
    rows = options[~options["baseline"]].sort_values("difference").to_dict("records")
    by_verdict = {
        word: [r for r in rows if r["verdict"] == word] for word in (BETTER, WORSE, SAME, OPEN)
    }
    depends = [r for r in rows if r["verdict"] not in by_verdict]
    parts = []
    if ahead := by_verdict[BETTER]:
        parts.append(f"{listed(map(amount, ahead))} ahead of {baseline}")
    if behind := by_verdict[WORSE]:
        parts.append(f"{listed(map(amount, behind))} behind {baseline}")
    if same := by_verdict[SAME]:
        names = listed(str(r["option"]) for r in same)
        parts.append(f"{names} the same as {baseline} within {statistics.delta:g}")
    parts += [turned(r, statistics) for r in depends]
    if unclear := by_verdict[OPEN]:
        parts.append(f"{listed(map(undecided, unclear))} cannot be told from {baseline}")
    return "; ".join(parts) + "."


def amount(row: dict[Any, Any]) -> str:
    """An option with its difference: `learned by 0.198 ± 0.021`, or with its count of solved runs."""
    if isinstance(row.get("solved"), str):
        return f"{row['option']} (solved {row['solved']}, the baseline {row['base_solved']})"
    return f"{row['option']} by {abs(row['difference']):.3f}{half(row)}{share(row)}"


def half(row: dict[Any, Any]) -> str:
    """Half of the interval, or both ends where they do not lie evenly around the difference."""
    low, high, value = row["low"], row["high"], row["difference"]
    if not (np.isfinite(low) and np.isfinite(high)):
        return ""
    if np.isclose(high - value, value - low, rtol=1e-6, atol=1e-9):
        return f" ± {high - value:.3f}"
    ends = sorted((abs(low), abs(high)))
    return f" ({ends[0]:.3f} to {ends[1]:.3f})"


def share(row: dict[Any, Any]) -> str:
    """In how many contexts the option won, where there are several."""
    return f" (lower in {row['won']} of {row['contexts']})" if row["contexts"] > 1 else ""


def undecided(row: dict[Any, Any]) -> str:
    """An option without a verdict, with what would give one."""
    if isinstance(row.get("solved"), str):
        return amount(row)
    if not row["contexts"]:
        return f"{row['option']} (no run is alike in all else)"
    if not np.isfinite(row["low"]):
        return f"{row['option']} ({row['difference']:+.3f}, one seed)"
    needs = ", more seeds do not help"
    if np.isfinite(row["needs"]):
        needs = f", about {several(int(row['needs']), 'seed')} would"
    return f"{row['option']} ({row['low']:+.3f} to {row['high']:+.3f}{needs})"


def turned(row: dict[Any, Any], statistics: Statistics) -> str:
    """An option whose sign turns with another factor: where it is better, where it is worse."""
    found = next(
        d for d in statistics.differences if (d.factor, d.option) == (row["factor"], row["option"])
    )
    by = found.verdict.removeprefix("depends on ")
    pieces = [
        f"{part.verdict} with {part.level} by {abs(part.value):.3f} ± {part.high - part.value:.3f}"
        for part in found.parts
        if part.verdict in (BETTER, WORSE)
    ]
    return (
        f"{row['option']} depends on {by}: {listed(pieces)} (lower than {found.baseline} in {found.won} "
        f"of {found.contexts} contexts)"
    )


def listed(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
