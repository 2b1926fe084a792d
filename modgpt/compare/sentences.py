"""What a comparison's numbers can tell, in sentences; nothing that they cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import pandas as pd

from modgpt.compare.load import FAILED, FINISHED, Results
from modgpt.compare.statistics import Statistics

LOOKS = {"device": "device", "precision": "precision", "threads": "number of threads"}


@dataclass(frozen=True)
class Words:
    """Paragraphs for the head of a report: jobs, fairness, noise, what can be told, cautions."""

    jobs: str
    match: str
    tuning: str
    noise: str
    meaning: str
    cautions: list[str]

    @property
    def paragraphs(self) -> list[str]:
        return [text for text in (self.jobs, self.match, self.tuning, self.noise, self.meaning) if text]


def describe(results: Results, statistics: Statistics) -> Words:
    """All sentences of a report."""
    return Words(
        jobs=jobs(results, statistics),
        match=match(results),
        tuning=tuning(results),
        noise=noise(statistics),
        meaning=meaning(results, statistics),
        cautions=list(cautions(results, statistics)),
    )


def several(n: int, thing: str) -> str:
    return f"{n:,} {thing}" if n == 1 else f"{n:,} {thing}s"


def jobs(results: Results, statistics: Statistics) -> str:
    counts = results.table["status"].value_counts()
    states = ", ".join(f"{count} {status}" for status, count in counts.items())
    varied = ", ".join(f"{f.name} ({len(f.levels)})" for f in results.factors) or "nothing but the seed"
    cells = several(len(statistics.cells), "combination")
    return (
        f"{several(len(results.table), 'job')}: {states}. The jobs differ in {varied}; "
        f"{cells} finished, most with {several(statistics.noise.seeds, 'seed')}. The headline metric "
        "is the final loss on the full validation set, in nats per token (lower is better)."
    )


def match(results: Results) -> str:
    """Which fairness was asked for, and the spread of the sizes that came of it."""
    rows = results.finished
    if rows.empty:
        return ""
    modes = sorted({str(m) for m in rows["match"].dropna()})
    asked = f"Sizes: match={', '.join(modes)}." if modes else "Sizes: as each option's knobs have them."
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
    """How hyperparameters were chosen for each combination, where they were."""
    sentences = []
    for chosen in results.tunings:
        candidates = ", ".join(dict.fromkeys(c for cell in chosen["cells"] for c in cell["losses"]))
        rule = "the lowest mean final loss over"
        if chosen["seeds"]:
            seeds = ", ".join(map(str, chosen["seeds"]))
            sentences.append(
                f"Each combination was trained with its own best of {candidates}: {rule} seeds {seeds}, "
                "none of which is reported here."
            )
        else:
            sentences.append(
                f"Each combination is shown with its own best of {candidates}: {rule} the very seeds "
                "that are compared. Having picked the best of several makes losses look a little lower "
                "than they are, the more so the noisier; sweep=fair chooses on other seeds."
            )
    return " ".join(sentences)


def noise(statistics: Statistics) -> str:
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
            f"Seed noise: unknown, for {reason}. Everything below is descriptive: no intervals, no "
            "p-values, and no way to tell a small difference from luck."
        )
    blocked = f" (with the shift that a seed gives to all runs alike: {found.within:.4f})"
    return (
        f"Seed noise: σ = {found.sigma:.4f} with {several(found.df, 'degree')} of freedom, pooled over "
        f"{several(found.replicated, 'combination')} run with several seeds"
        f"{blocked if found.blocked else ''}. Noise floor: the means of two combinations with "
        f"{several(found.seeds, 'seed')} each have to be more than {found.floor:.4f} apart before their "
        "95 % interval excludes zero; smaller differences are marked as ties."
    )


def meaning(results: Results, statistics: Statistics) -> str:
    rows, cells = results.finished, statistics.cells
    if rows.empty:
        return ""
    tokens = rows["tokens_seen"].dropna()
    low, high = (tokens.min(), tokens.max()) if len(tokens) else (0, 0)
    budget = f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
    kept = "these other hyperparameters" if results.tuned else "these hyperparameters"
    wants = "other values of those" if results.tuned else "another learning rate"
    regime = (
        f"The numbers hold for this corpus, these sizes, {kept} and a budget of {budget} "
        f"tokens per run: an option that wants {wants}, a larger model or more tokens is "
        "judged without them."
    )
    designed = [f for f in statistics.factors if f.designed]
    if not designed:
        return regime
    apart = sum((cells[f.name] != f.baseline).astype(int) for f in designed)
    assert isinstance(apart, pd.Series)
    if len(cells) == prod(len(f.levels) for f in designed):
        design = "The grid is complete: a main effect is an average over all other choices."
    elif (apart <= 1).all():
        design = (
            "One choice at a time was changed: an effect is one beside the baseline, and whether "
            "choices depend on each other was not asked."
        )
    else:
        design = (
            "The grid is incomplete: deviations come from the additive model, differences from the "
            "pairs of runs that exist."
        )
    tests = (
        " p-values and intervals speak of other seeds on the same data. Holm's correction is over all "
        "tests of a table."
    )
    return f"{regime} {design}{tests if statistics.noise.sigma is not None else ''}"


def one_corpus_each(rows: pd.DataFrame, factor: str) -> bool:
    """Whether the data are a matter of this factor, as a task's are of its length."""
    return bool((rows.groupby(factor)["corpus_sha256"].nunique() == 1).all())


def cautions(results: Results, statistics: Statistics) -> Iterator[str]:
    """What a reader could stumble over."""
    if results.finished.empty:
        yield "No run has finished with a finite loss: there is nothing to compare yet."
        return
    yield from missing_runs(results.table)
    yield from unlike_runs(results, statistics)
    yield from chosen_values(results)
    yield from unseparated(statistics)
    if statistics.noise.sigma is not None:
        yield from doubtful_noise(statistics)


def missing_runs(table: pd.DataFrame) -> Iterator[str]:
    """Of jobs that have no final loss."""
    failed = int((table["status"] == FAILED).sum())
    if failed:
        yield (
            f"{several(failed, 'failed job')} {'is' if failed == 1 else 'are'} missing from all means: "
            "an option that often fails is judged by its surviving runs."
        )
    open_jobs = int((~table["status"].isin([FINISHED, FAILED, "SKIPPED"])).sum())
    if open_jobs:
        yield f"{several(open_jobs, 'job')} not done yet; what follows may change."


def unlike_runs(results: Results, statistics: Statistics) -> Iterator[str]:
    """Of runs that are no equals, or no design."""
    rows = results.finished
    if rows["tokens_seen"].nunique() > 1:
        yield "The finished runs saw different numbers of tokens: look at the curves against tokens."
    if rows["corpus_sha256"].nunique() > 1:
        by = next((f.name for f in statistics.factors if one_corpus_each(rows, f.name)), None)
        yield (
            f"Each {by} has data of its own: losses compare within one, not between them."
            if by
            else "The runs were trained on different corpora: their losses cannot be compared."
        )
    differ = [name for column, name in LOOKS.items() if rows[column].nunique() > 1]
    if rows["git_revision"].nunique() > 1:
        differ.append("revision of the code")
    if differ:
        yield f"The finished runs differ in {', '.join(differ)}."
    if any((folder / "study.db").exists() for folder in results.folders):
        yield (
            "These are the trials of a search, which tries good options more often and with better "
            "hyperparameters: its effects are no measurements. Confirm a winner with a sweep over seeds."
        )


def chosen_values(results: Results) -> Iterator[str]:
    """Of hyperparameters that were chosen for each combination."""
    unknown = sum(cell["chosen"] is None for tuning in results.tunings for cell in tuning["cells"])
    if unknown:
        yield (
            f"{several(unknown, 'combination')} left out: with none of the values of "
            f"{', '.join(sorted(results.tuned))} every seed has finished."
        )
    edges = sum(cell["at_edge"] for tuning in results.tunings for cell in tuning["cells"])
    if edges:
        yield (
            f"{several(edges, 'combination')} chose the first or last value on the list of "
            f"{', '.join(sorted(results.tuned))}: a better one may lie outside it."
        )


def unseparated(statistics: Statistics) -> Iterator[str]:
    """Of choices and runs that the statistics leave out."""
    for factor in statistics.factors:
        if not factor.designed:
            yield (
                f"{factor.name} takes {len(factor.levels)} values: it tells combinations apart, but "
                "has no main effect here."
            )
    if statistics.repeated:
        yield (
            f"{several(statistics.repeated, 'run')} left out of the statistics: the same combination "
            "and seed was run again later."
        )
    lost = statistics.effects["deviation"].isna() if len(statistics.effects) else pd.Series(dtype=bool)
    if lost.any():
        names = sorted(set(statistics.effects.loc[lost, "factor"]))
        yield f"Not separable from the other choices in these runs: {', '.join(names)}."


def doubtful_noise(statistics: Statistics) -> Iterator[str]:
    """Of an estimate of the seed noise that rests on little."""
    found = statistics.noise
    if found.df < 5:
        yield "The noise is estimated from few replicates: its intervals are wide, and rightly so."
    alone = int((statistics.cells["n"] == 1).sum())
    if alone:
        yield (
            f"{several(alone, 'combination')} with a single seed: their noise is taken to be that of "
            "the others."
        )
    scatter = statistics.cells["sd"] ** 2 * (statistics.cells["n"] - 1)
    if found.replicated >= 4 and scatter.max() > scatter.sum() / 2:
        cell = statistics.cells.loc[scatter.idxmax()]
        other = [f for f in statistics.factors if cell[f.name] != f.baseline]
        choices = ", ".join(f"{f.name}={cell[f.name]}" for f in other) or "the baseline"
        yield f"More than half of the noise comes from one combination: {choices}."
