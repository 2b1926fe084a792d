"""Sweeps that add seeds until they are sure: the `until_sure.json` beside their runs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from modgpt.compare.folders import Problem
from modgpt.statistics.verdict import CONFIDENCE, DELTA
from modgpt.sweep.design import LOOKS
from modgpt.text import visible


@dataclass(frozen=True)
class Looks:
    """How often a sweep has looked at its results, and what that asks of the intervals.

    Attributes:
        seeds: per combination at each look so far.
        confidence: of the intervals of every look, so that all looks hold together.
        same_within: differences below it count as the same, nats per token.
        complete: no seeds will be added; until then verdicts are provisional.
    """

    seeds: tuple[int, ...] = ()
    confidence: float = CONFIDENCE
    same_within: float = DELTA
    complete: bool = True


def read_looks(runs: Iterable[Path]) -> tuple[Looks, list[Problem]]:
    """The looks of the sweeps that some run folders belong to, and the files that are damaged.

    Of several sweeps the highest confidence counts.
    """
    found: list[Looks] = []
    problems: list[Problem] = []
    for parent in sorted({run.parent for run in runs}):
        path = parent / LOOKS
        if not path.exists():
            continue
        try:
            if not path.is_file() or path.stat().st_size > 100_000:
                raise ValueError("not a file of modgpt's")
            found.append(checked(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            reason = f"cannot be read ({visible(error)}): intervals do not account for its looks"
            problems.append(Problem(path, reason))
    return max(found, key=lambda looks: looks.confidence, default=Looks()), problems


def checked(values: dict[str, object]) -> Looks:
    """The content of a file, each part of its type.

    Raises:
        ValueError, TypeError, KeyError: a part is missing, of another type or impossible.
    """
    seeds, confidence = values["looks"], values["confidence"]
    same, complete = values["same_within"], values["complete"]
    if not isinstance(seeds, list) or not all(type(n) is int and n > 0 for n in seeds):
        raise ValueError("looks must be a list of numbers of seeds")
    if type(confidence) is not float or not 0.5 < confidence < 1:
        raise ValueError("confidence must lie between 0.5 and 1")
    if type(same) not in (int, float) or not 0 < same < float("inf"):  # pyright: ignore
        raise ValueError("same_within must be above 0")
    if type(complete) is not bool:
        raise ValueError("complete must be true or false")
    return Looks(tuple(seeds), confidence, float(same), complete)  # pyright: ignore
