"""The run folders below the folders that a user names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from modgpt.errors import UserError
from modgpt.sweep.design import TUNED, TUNING
from modgpt.text import visible

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """Something that the comparison leaves out: where it is, and why."""

    path: Path
    reason: str  # without control characters

    def __str__(self) -> str:
        return f"{visible(self.path)}: {self.reason}"


def find_runs(tops: Iterable[Path]) -> tuple[list[Path], list[Problem]]:
    """The folders with a `result.json` below these, each once, in the order of their names.

    Runs that only chose hyperparameters for others are left out, unless they are named themselves. A
    named path without any run, such as one of a shell's glob, is returned as a problem.

    Raises:
        UserError: a path does not exist, or there is no run below any of them.
    """
    runs: dict[Path, Path] = {}
    problems: list[Problem] = []
    tops = list(tops)
    for top in tops:
        if not os.path.exists(top):  # False, too, for a name that is too long
            raise UserError(f"{visible(top)} does not exist: name the folder of a sweep or of a run")
        found = list(runs_below(top, problems)) if top.is_dir() else []
        if not found:
            why = "no run has started here yet" if top.is_dir() else "not a folder"
            problems.append(Problem(top, why))
        for run in found:
            runs.setdefault(run.resolve(), run)
    if not runs:
        names = ", ".join(visible(top) for top in tops)
        raise UserError(
            f"no run (a folder with a result.json) below {names}: name the folder of a sweep, or of "
            "single runs"
        )
    return list(runs.values()), problems


def read_runs(tops: Iterable[Path], read: Callable[[Path], T]) -> tuple[list[T], list[Problem]]:
    """What `read` makes of every run folder below these; a folder that it refuses is a problem.

    Raises:
        UserError: a path does not exist, or no run can be read.
    """
    paths, problems = find_runs(tops)
    runs = []
    for path in paths:
        try:
            runs.append(read(path))
        except UserError as error:
            # The path is named already.
            problems.append(Problem(path, visible(error).removeprefix(f"{visible(path)}/")))
    if not runs:
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"no run can be read: {problems[0]}{others}")
    return runs, problems


def runs_below(top: Path, problems: list[Problem]) -> Iterator[Path]:
    """The run folders below one folder; folders that cannot be read are added to the problems."""

    def unreadable(error: OSError) -> None:
        problems.append(Problem(Path(str(error.filename)), str(error.strerror)))

    for folder, below, files in os.walk(top, onerror=unreadable):
        tuned = TUNED in files
        if "result.json" in (*files, *below):
            below.clear()  # a run holds checkpoints, no further runs
            yield Path(folder)
        below[:] = sorted(name for name in below if not (name == TUNING and tuned))


def names_of(paths: list[Path]) -> list[str]:
    """The folders' names, with as many of their parents as make them unique."""
    real = [path.resolve() for path in paths]
    for depth in range(1, 1 + max(len(path.parts) for path in real)):
        names = [visible("/".join(path.parts[-depth:])) for path in real]
        if len(set(names)) == len(names):
            return names
    return [f"{visible(path)} ({number})" for number, path in enumerate(real, start=1)]
