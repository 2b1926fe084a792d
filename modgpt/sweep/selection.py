"""Which of several candidates for a hyperparameter a combination is judged by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One combination of parts, and how it fared with each candidate.

    Attributes:
        overrides: what makes the combination, seeds left out.
        losses: mean final validation loss by candidate; None where a seed did not finish.
        chosen: the candidate with the lowest mean; None where none finished.
        at_edge: the chosen one is the first or last of several: a better one may lie outside the list.
    """

    overrides: list[str]
    losses: dict[str, float | None]
    chosen: str | None
    at_edge: bool


def choose(overrides: Sequence[str], losses: Mapping[str, float | None], ordered: bool = True) -> Cell:
    """The candidate with the lowest mean loss, of those that finished with every seed.

    Args:
        overrides: what makes the combination.
        losses: mean loss by candidate.
        ordered: whether the list of candidates has ends, as numbers have.
    """
    finished = {candidate: loss for candidate, loss in losses.items() if loss is not None}
    best = min(finished, key=lambda candidate: finished[candidate], default=None)
    candidates = list(losses)
    at_edge = ordered and len(candidates) > 1 and best in (candidates[0], candidates[-1])
    return Cell(list(overrides), dict(losses), best, at_edge)
