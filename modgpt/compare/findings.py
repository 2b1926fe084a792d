"""One sentence per factor: what matters, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from modgpt.compare.analysis import Statistics
from modgpt.compare.counting import several
from modgpt.statistics.verdict import BETTER, OPEN, SAME, WORSE


class Name(str):
    """The name of an option, which the page sets apart from the words around it."""

    __slots__ = ()


Pieces = list[str]  # of a sentence; the names of options among them are `Name`


@dataclass(frozen=True)
class Finding:
    """What the runs say about one factor.

    Attributes:
        factor: its name.
        size: the largest decided difference in nats, by which the findings are ordered; 0 without one.
        pieces: the rest of the sentence that begins with the factor.
    """

    factor: str
    size: float
    pieces: Pieces

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def findings(statistics: Statistics) -> list[Finding]:
    """A finding per factor, the one that matters most first."""
    if not len(statistics.effects):
        return []
    found = [
        Finding(str(factor), size(str(factor), statistics), sentence(options, statistics))
        for factor, options in statistics.effects.groupby("factor", sort=False)
    ]
    return sorted(found, key=lambda finding: -finding.size)


def size(factor: str, statistics: Statistics) -> float:
    """The largest difference with a verdict better or worse, in all contexts or in some; else 0."""
    effects = statistics.effects[statistics.effects["factor"] == factor]
    options = zip(effects["verdict"], effects["difference"], strict=True)
    parts = ((p.verdict, p.value) for d in statistics.differences if d.factor == factor for p in d.parts)
    decided = [abs(value) for said, value in (*options, *parts) if said in (BETTER, WORSE)]
    return float(max((value for value in decided if np.isfinite(value)), default=0.0))


def sentence(options: pd.DataFrame, statistics: Statistics) -> Pieces:
    """The verdicts on one factor's options, grouped: ahead, behind, the same, depends, open."""
    baseline = Name(options.loc[options["baseline"], "option"].iloc[0])
    rows = options[~options["baseline"]].sort_values("difference").to_dict("records")
    by_verdict = {
        word: [r for r in rows if r["verdict"] == word] for word in (BETTER, WORSE, SAME, OPEN)
    }
    parts: list[Pieces] = []
    if ahead := by_verdict[BETTER]:
        parts.append([*listed([amount(r) for r in ahead]), " ahead of ", baseline])
    if behind := by_verdict[WORSE]:
        parts.append([baseline, " ahead of ", *listed([amount(r) for r in behind])])
    if same := by_verdict[SAME]:
        parts.append([*names(same), " the same as ", baseline, f" within {statistics.delta:g}"])
    parts += [turned(r, statistics) for r in rows if r["verdict"] not in by_verdict]
    if unclear := by_verdict[OPEN]:
        parts.append(["cannot tell ", *names(unclear), " from ", baseline, *needed(unclear)])
    return [*joined(parts, "; "), "."]


def amount(row: dict[Any, Any]) -> Pieces:
    """An option with its difference: `learned by 0.198 ± 0.021`, or with its count of solved runs."""
    if isinstance(row.get("solved"), str):
        return [Name(row["option"]), f" (solved {row['solved']}, the baseline {row['base_solved']})"]
    return [Name(row["option"]), f" by {abs(row['difference']):.3f}{half(row)}{share(row)}"]


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
    """In how many contexts the option won, where it is neither none nor all of them."""
    won, contexts = row["won"], row["contexts"]
    return f" (lower in {won} of {contexts} contexts)" if 0 < won < contexts else ""


def needed(rows: Sequence[dict[Any, Any]]) -> Pieces:
    """What would give a verdict on options that have none: seeds, or what else is missing."""
    if isinstance(rows[0].get("solved"), str):
        counts = [f"{r['solved']} against {r['base_solved']}" for r in rows]
        return [f" (solved {', '.join(counts)})"]
    reasons = []
    if any(not r["contexts"] for r in rows):
        reasons.append("no run is alike in all else")
    measured = [r for r in rows if r["contexts"]]
    if any(not np.isfinite(r["low"]) for r in measured):
        reasons.append("one seed")
    tried = [r["needs"] for r in measured if np.isfinite(r["low"])]
    if numbers := [int(n) for n in tried if np.isfinite(n)]:
        few, many = min(numbers), max(numbers)
        seeds = several(few, "seed") if few == many else f"{few} to {many} seeds"
        reasons.append(f"needs about {seeds}")
    if len(numbers) < len(tried):
        reasons.append("more seeds do not help")
    return [f" ({', '.join(reasons)})"]


def turned(row: dict[Any, Any], statistics: Statistics) -> Pieces:
    """An option whose sign turns with another factor: where it is better, where it is worse."""
    found = next(
        d for d in statistics.differences if (d.factor, d.option) == (row["factor"], row["option"])
    )
    by = found.verdict.removeprefix("depends on ")
    pieces = [
        [
            f"{part.verdict} with ",
            Name(part.level),
            f" by {abs(part.value):.3f} ± {part.high - part.value:.3f}",
        ]
        for part in found.parts
        if part.verdict in (BETTER, WORSE)
    ]
    return [
        *(Name(found.option), f" depends on {by}: ", *listed(pieces)),
        *(" (lower than ", Name(found.baseline), f" in {found.won} of {found.contexts} contexts)"),
    ]


def names(rows: Sequence[dict[Any, Any]]) -> Pieces:
    """The options of some rows."""
    return listed([[Name(row["option"])] for row in rows])


def listed(parts: Sequence[Pieces]) -> Pieces:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = parts
    return [*joined(first, ", "), " and ", *last] if first else last


def joined(parts: Sequence[Pieces], between: str) -> Pieces:
    """Parts of a sentence, one after the other."""
    return [piece for i, part in enumerate(parts) for piece in ([between] if i else []) + part]
