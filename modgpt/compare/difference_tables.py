"""The tables of differences from the baselines, as rows of text: options, parts, budgets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from modgpt.compare.analysis import Statistics
from modgpt.compare.other_texts import OverTexts
from modgpt.compare.tables import interval, p_shown
from modgpt.compare.text_noise import TextDifference
from modgpt.statistics.budgets import Estimate
from modgpt.statistics.wording import verdict_note

DIFFERENCE, INTERVAL, VERDICT = "difference", "95 % interval", "verdict"
ON_TEXTS = "on other texts"
TEXTS_NOTE = (
    "On other texts: half the 95 % interval of how the difference would vary over validation texts of "
    "the same kind and length, with the trained models as they are (block bootstrap)."
)


def effect_rows(statistics: Statistics, texts: OverTexts | None = None) -> list[dict[str, str]]:
    """What every option changes, as text; the baseline of a factor stands first.

    Args:
        statistics: of the comparison.
        texts: the differences over other texts, if they are a column.
    """
    answers, notes = bool(statistics.solved), verdict_notes(statistics)
    rows = []
    for _, e in statistics.effects.iterrows():
        note = notes.get((e["factor"], e["option"]))
        baseline, difference = bool(e["baseline"]), e["difference"]
        row = {
            "factor": e["factor"],
            "option": e["option"],
            DIFFERENCE: "" if baseline or np.isnan(difference) else f"{difference:+.4f}",
            INTERVAL: interval(e["low"], e["high"], "+.4f"),
            VERDICT: f"{e['verdict']} ({note})" if note else e["verdict"],
            "contexts won": f"{e['won']} of {e['contexts']}" if e["contexts"] else "",
        }
        if texts:
            row[ON_TEXTS] = half_over_texts(texts.get((e["factor"], e["option"])))
        if answers:
            solved = isinstance(e["solved"], str)
            row |= {
                "solved": e["solved"] if solved else "",
                "share: exact 95 % interval": share(e) if solved else "",
                "baseline solved": e["base_solved"] if solved else "",
                "p (Fisher)": p_shown(e["p"]) if solved else "",
            }
        rows.append(
            row
            | {
                "active parameters": change(e["active_parameters_ratio"]),
                "FLOPs/token": change(e["flops_per_token_ratio"]),
                "tokens/s": change(e["tokens_per_second_ratio"]),
                "peak memory": change(e["peak_memory_bytes_ratio"]),
                "interval from": e["error"],
                "runs": str(e["runs"]),
            }
        )
    return rows


def half_over_texts(found: TextDifference | None) -> str:
    """`± 0.0040`; empty where there is no interval."""
    if found is None or not np.isfinite(found.high):
        return ""
    return f"± {found.high - found.difference:.4f}"


def task_rows(statistics: Statistics) -> list[dict[str, str]]:
    """Solved runs with the exact 95 % interval of their share: a row per task, a column per option."""
    lines = dict[str, dict[str, str]]()
    several = len({c.factor for c in statistics.tasks}) > 1
    for c in statistics.tasks:
        column = f"{c.factor}={c.option}" if several else c.option
        text = f"{c.solved} of {c.runs} ({c.low:.0%} to {c.high:.0%})"
        lines.setdefault(c.task, {"task": c.task})[column] = text
    columns = dict.fromkeys(name for line in lines.values() for name in line)
    return [{name: line.get(name, "") for name in columns} for line in lines.values()]


def verdict_notes(statistics: Statistics) -> dict[tuple[str, str], str]:
    """What belongs to the verdict of every option; empty for a task, which has columns of counts."""
    if statistics.solved:
        return {}
    return {(d.factor, d.option): verdict_note(d, statistics.delta) for d in statistics.differences}


def share(effect: pd.Series) -> str:
    """The interval of a share of solved runs, in per cent."""
    return f"{effect['share_low']:.0%} to {effect['share_high']:.0%}"


def part_rows(statistics: Statistics) -> list[dict[str, str]]:
    """Options whose sign turns with another factor: a row per level of that factor."""
    return [
        {
            "factor": d.factor,
            "option": d.option,
            "where": f"{d.verdict.removeprefix('depends on ')}={part.level}",
            DIFFERENCE: f"{part.value:+.4f}",
            INTERVAL: interval(part.low, part.high, "+.4f"),
            VERDICT: part.verdict,
            "contexts won": f"{part.won} of {part.contexts}",
        }
        for d in statistics.differences
        for part in d.parts
    ]


def budget_rows(statistics: Statistics) -> list[dict[str, str]]:
    """How every difference depends on the budget, and what it is at equal compute and equal time."""
    every = sorted({tokens for found in statistics.budgets for tokens in found.tokens})
    gaps = [dict(zip(found.tokens, found.gaps, strict=True)) for found in statistics.budgets]
    return [
        {"factor": found.factor, "option": found.option, "against": found.baseline}
        | {f"Δ at {tokens:,.0f} tokens": estimated(gap.get(tokens)) for tokens in every}
        | {
            "Δ at equal FLOPs": estimated(found.at_equal_flops),
            "Δ at equal time": estimated(found.at_equal_time),
            "effective speed-up": times(found.speed_up),
        }
        for found, gap in zip(statistics.budgets, gaps, strict=True)
    ]


def estimated(found: Estimate | None) -> str:
    """`+0.012 ± 0.004`; empty where there is none."""
    if found is None:
        return ""
    half = found.high - found.value
    return signed(found.value) + (f" ± {half:.3f}" if np.isfinite(half) else "")


def times(found: Estimate | None) -> str:
    """`1.32 times (1.21 to 1.44)`; empty where there is none."""
    if found is None:
        return ""
    ends = f" ({found.low:.2f} to {found.high:.2f})" if np.isfinite(found.high) else ""
    return f"{found.value:.2f} times{ends}"


def signed(value: float) -> str:
    """A difference with its sign; zero has none."""
    return f"{value:+.3f}" if f"{abs(value):.3f}" != "0.000" else "0.000"


def change(ratio: float) -> str:
    """A ratio as a change in per cent: 1.1 as +10.0%."""
    return f"{ratio - 1:+.1%}" if np.isfinite(ratio) else ""
