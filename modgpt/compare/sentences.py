"""The paragraphs at the head of a report: what was run, and what the numbers show."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import pandas as pd

from modgpt.compare.analysis import Statistics
from modgpt.compare.cautions import cautions
from modgpt.compare.counting import several
from modgpt.compare.load import Results
from modgpt.compare.other_texts import OverTexts
from modgpt.statistics.power import smallest_shown


@dataclass(frozen=True)
class Words:
    """Paragraphs: the jobs, the sizes of the models, tuning, seed noise, and what the numbers mean."""

    jobs: str
    match: str
    tuning: str
    noise: str
    meaning: str
    cautions: list[str]

    @property
    def paragraphs(self) -> list[str]:
        return [text for text in (self.jobs, self.match, self.tuning, self.noise, self.meaning) if text]


def describe(results: Results, statistics: Statistics, texts: OverTexts | None = None) -> Words:
    """All paragraphs and cautions of a report."""
    return Words(
        jobs=jobs(results, statistics),
        match=match(results),
        tuning=tuning(results),
        noise=noise(statistics),
        meaning=meaning(results, statistics),
        cautions=list(cautions(results, statistics, texts or {})),
    )


def jobs(results: Results, statistics: Statistics) -> str:
    """What was run."""
    counts = results.table["status"].value_counts()
    states = ", ".join(f"{count} {status}" for status, count in counts.items())
    varied = ", ".join(f"{f.name} ({len(f.levels)})" for f in results.factors) or "nothing but the seed"
    cells = several(len(statistics.cells), "combination")
    return (
        f"{several(len(results.table), 'job')}: {states}. The jobs differ in {varied}; "
        f"{cells} finished, most with {several(statistics.noise.seeds, 'seed')}. The headline metric "
        f"is the final loss on the full validation set, in {results.unit} (lower is better)."
    )


def match(results: Results) -> str:
    """How model sizes were matched, and how far the sizes still differ."""
    rows = results.finished
    if rows.empty:
        return ""
    modes = sorted({str(m) for m in rows["match"].dropna()})
    asked = "Sizes: not matched." if modes in ([], ["none"]) else f"Sizes: match={', '.join(modes)}."
    spreads = []
    for column, name in (
        ("active_parameters", "active parameters"),
        ("parameters", "total parameters"),
        ("flops_per_token", "FLOPs per token"),
    ):
        low, high = rows[column].min(), rows[column].max()
        if low > 0:
            spreads.append(f"{name} {low:,.0f} to {high:,.0f} ({high / low - 1:.1%} apart)")
    return f"{asked} Over the finished runs: {'; '.join(spreads)}." if spreads else asked


def tuning(results: Results) -> str:
    """How hyperparameters were chosen for each combination; empty where none were."""
    sentences = []
    for chosen in results.tunings:
        candidates = ", ".join(dict.fromkeys(c for cell in chosen["cells"] for c in cell["losses"]))
        if chosen["seeds"]:
            seeds = ", ".join(map(str, chosen["seeds"]))
            sentences.append(
                f"Each combination was trained with its own best of {candidates}. The best has the "
                f"lowest mean final loss over seeds {seeds}; no result here uses these seeds."
            )
        else:
            sentences.append(
                f"Each combination is shown with its own best of {candidates}. The best has the lowest "
                "mean final loss over the very seeds that are compared. The best of several noisy "
                "losses is a little too low, and more so with more noise; sweep=fair chooses on other "
                "seeds."
            )
    return " ".join(sentences)


def noise(statistics: Statistics) -> str:
    """The seed noise, and the smallest difference distinguishable from it."""
    found = statistics.noise
    if statistics.cells.empty:
        return ""
    if found.sigma is None:
        reason = (
            "the replicates have identical losses"
            if found.replicated
            else "no combination finished with more than one seed"
        )
        return (
            f"Seed noise: unknown, because {reason}. All numbers below are descriptive: there are no "
            "intervals and no p-values, and a small difference may be chance."
        )
    shift = ""
    if found.correlation is not None:
        shift = (
            f" Runs are paired by seed; the shift that a seed gives to all runs alike is "
            f"{max(0.0, found.correlation):.0%} of the variance."
        )
    low, high = found.interval()
    seeds, options = found.seeds, max(1, len(statistics.differences))
    shown = smallest_shown(found.sigma, seeds, options)
    return (
        f"Seed noise: σ = {found.sigma:.4f} (95 % interval {low:.4f} to {high:.4f}, "
        f"{several(found.df, 'degree')} of freedom), pooled over "
        f"{several(found.replicated, 'combination')} run with several seeds.{shift} With "
        f"{several(seeds, 'seed')} each, a true difference of {shown:.3f} between an option and its "
        "baseline is shown with 80 % chance."
    )


def meaning(results: Results, statistics: Statistics) -> str:
    """The conditions under which the numbers hold, and what the design can show."""
    rows = results.finished
    if rows.empty:
        return ""
    tokens = rows["tokens_seen"].dropna()
    low, high = (tokens.min(), tokens.max()) if len(tokens) else (0, 0)
    budget = f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
    regime = (
        f"The numbers hold for this corpus, these model sizes, these hyperparameters and {budget} "
        "tokens per run. An option may rank differently with other hyperparameters, a larger model or "
        "more tokens."
    )
    designed = [f for f in statistics.factors if f.designed]
    if not designed:
        return regime
    apart = sum((statistics.cells[f.name] != f.baseline).astype(int) for f in designed)
    assert isinstance(apart, pd.Series)
    if len(statistics.cells) == prod(len(f.levels) for f in designed):
        design = "The grid is complete: every option meets its baseline in every context."
    elif (apart <= 1).all():
        design = (
            "One choice at a time was changed: an effect is measured beside the baseline only. These "
            "runs do not show whether choices depend on each other."
        )
    else:
        design = (
            "The grid is incomplete: differences come from the contexts in which both an option and its "
            "baseline were run."
        )
    tests = (
        f" All intervals of the differences hold together with {statistics.confidence:.3g} confidence, "
        "and describe other seeds on the same data."
    )
    return f"{regime} {design}{tests if statistics.noise.sigma is not None else ''}"
