"""How the difference of every option would vary over other validation texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import isnan
from pathlib import Path

import pandas as pd

from modgpt.compare.analysis import Statistics, compared_runs
from modgpt.compare.load import Results
from modgpt.compare.text_noise import TextDifference, text_difference
from modgpt.compare.units import PER_TOKEN
from modgpt.errors import UserError
from modgpt.runs.window_losses import WindowLosses, read_window_losses

OverTexts = dict[tuple[str, str], TextDifference]


def over_texts(results: Results, statistics: Statistics) -> OverTexts:
    """By factor and option: the difference from the baseline, with its interval over texts.

    Only contexts in which both were run count, as in the difference over seeds. An option is left out
    where there is no such difference, where a run has not kept the losses of its final validation, or
    where the texts differ. Nothing is returned for a task, which has no text, and where tokenizers
    differ.
    """
    if statistics.solved or results.unit != PER_TOKEN:
        return {}
    frame, names = compared_runs(results)
    found: OverTexts = {}
    read = cache(read_window_losses)  # each run of a baseline serves many options
    for d in statistics.differences:
        if isnan(d.value):
            continue
        base = next(f.baseline for f in statistics.factors if f.name == d.factor)
        others = [name for name in names if name != d.factor]
        options, bases = in_shared_contexts(frame, d.factor, d.option, base, others)
        if pd.concat([options, bases])["corpus_sha256"].nunique() != 1:
            continue
        sides = losses(options, read), losses(bases, read)
        if sides[0] and sides[1] and len({int(run.targets.sum()) for run in sides[0] + sides[1]}) == 1:
            found[d.factor, d.option] = text_difference(*sides)
    return found


def in_shared_contexts(
    frame: pd.DataFrame, factor: str, option: str, baseline: str, others: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs of an option and those of its baseline, in the contexts that have both."""
    first, second = frame[frame[factor] == option], frame[frame[factor] == baseline]
    if not others:
        return first, second
    shared = first[[*others]].merge(second[[*others]]).drop_duplicates()
    return first.merge(shared, on=[*others]), second.merge(shared, on=[*others])


def losses(rows: pd.DataFrame, read: Callable[[Path], WindowLosses | None]) -> list[WindowLosses]:
    """The window losses of the final validations; empty where a run has none."""
    found = []
    for path, step in zip(rows["path"], rows["final_step"], strict=True):
        try:
            windows = read(Path(path))
        except UserError:
            return []
        if windows is None or windows.step != step:
            return []
        found.append(windows)
    return found
