"""How hyperparameters were chosen for each combination: the `tuning.json` beside the runs of a sweep."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any

from modgpt.compare.folders import Problem
from modgpt.sweep.design import TUNED
from modgpt.text import visible


def read_tunings(runs: Iterable[Path]) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The contents of every `tuning.json` beside these run folders, and the files that are damaged."""
    tunings: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for parent in sorted({run.parent for run in runs}):
        path = parent / TUNED
        if not path.exists():
            continue
        try:
            if not path.is_file():
                raise ValueError("not a file")
            tunings.append(checked(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            reason = f"cannot be read ({visible(error)}): the values it chose count as options"
            problems.append(Problem(path, reason))
    return tunings, problems


def checked(tuning: dict[str, Any]) -> dict[str, Any]:
    """The parts of a tuning that the comparison uses, each of the expected type.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: a part is missing or of another type.
    """
    return {
        "keys": texts(tuning["keys"]),
        "seeds": [int(seed) for seed in tuning["seeds"]],
        "cells": [
            {
                "overrides": texts(cell["overrides"]),
                "losses": {visible(name): loss(value) for name, value in cell["losses"].items()},
                "chosen": None if cell["chosen"] is None else texts([cell["chosen"]])[0],
                "at_edge": bool(cell["at_edge"]),
            }
            for cell in tuning["cells"]
        ],
    }


def texts(values: object) -> list[str]:
    """A list of texts.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("a list of texts is missing")
    return [visible(value) for value in values]


def loss(value: object) -> float | None:
    """A mean loss, None where a seed did not finish.

    Raises:
        TypeError: it is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise TypeError("a loss is not a number")
    return float(value) if value is not None and isfinite(value) else None
