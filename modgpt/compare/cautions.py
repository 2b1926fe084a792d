"""Cautions beside a comparison: what could mislead a reader of these runs."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from modgpt.compare.analysis import Statistics
from modgpt.compare.columns import BITS_PER_BYTE, DIVERGED, FAILED, INTERRUPTED, PARTIAL, RUNNING
from modgpt.compare.counting import several
from modgpt.compare.load import Results
from modgpt.compare.other_texts import OverTexts
from modgpt.compare.units import PER_BYTE
from modgpt.statistics.verdict import BETTER, WORSE

CONDITION_NAMES = {"device": "device", "precision": "precision", "threads": "number of threads"}


def cautions(results: Results, statistics: Statistics, texts: OverTexts) -> Iterator[str]:
    """All cautions, one sentence or two each."""
    if results.problems:
        yield f"{several(len(results.problems), 'path')} left out, listed under Not read."
    if results.finished.empty:
        yield "No run has finished with a finite loss: there is nothing to compare yet."
        return
    yield from missing_runs(results.table)
    yield from unlike_runs(results, statistics)
    yield from chosen_values(results)
    yield from several_looks(results)
    yield from unseparated(statistics)
    yield from of_this_text(statistics, texts)
    if statistics.noise.sigma is not None:
        yield from doubtful_noise(statistics)


def missing_runs(table: pd.DataFrame) -> Iterator[str]:
    """Cautions about runs without a final loss."""
    counts = table["status"].value_counts()
    lost = int(counts.get(FAILED, 0)) + int(counts.get(DIVERGED, 0))
    if lost:
        yield (
            f"{several(lost, 'failed or diverged job')} {'is' if lost == 1 else 'are'} missing from all "
            "means: an option that often fails is judged by its surviving runs."
        )
    if partial := int(counts.get(PARTIAL, 0)):
        yield f"{several(partial, 'partial result')} not in the statistics, listed under Not finished."
    if going := int(counts.get(RUNNING, 0)) + int(counts.get(INTERRUPTED, 0)):
        yield f"{several(going, 'job')} not finished yet: the results may still change."


def unlike_runs(results: Results, statistics: Statistics) -> Iterator[str]:
    """Cautions about runs that were not trained under the same conditions."""
    rows = results.finished
    if results.unit == PER_BYTE:
        yield (
            "The tokenizers differ, so all losses are in nats per byte of text. In bits per byte: "
            f"{bits_per_byte(rows)}."
        )
    elif rows["tokens_seen"].nunique() > 1:
        yield (
            "The finished runs saw different numbers of tokens: compare their curves against tokens, "
            "not steps."
        )
    if rows["corpus_sha256"].nunique() > 1:
        by = "task" if statistics.tasks else None
        by = by or next((f.name for f in statistics.factors if one_corpus_each(rows, f.name)), None)
        yield (
            f"Each {by} has its own data: compare losses within one {by}, not between them."
            if by
            else "The runs were trained on different corpora: their losses cannot be compared."
        )
    differ = [name for column, name in CONDITION_NAMES.items() if rows[column].nunique() > 1]
    if rows["git_revision"].nunique() > 1:
        differ.append("revision of the code")
    if differ:
        yield f"The finished runs differ in {', '.join(differ)}."
    if any((folder / "study.db").exists() for folder in results.folders):
        yield (
            "These are the trials of a search. It tries good options more often and with better "
            "hyperparameters, so the effects here are not measurements. Confirm a winner with a sweep "
            "over seeds."
        )


def bits_per_byte(rows: pd.DataFrame) -> str:
    """The mean bits per byte of each tokenizer, the lowest first."""
    means = rows.groupby(["tokenizer", "vocab_size"])[BITS_PER_BYTE].mean().sort_values().reset_index()
    triples = zip(means["tokenizer"], means["vocab_size"], means[BITS_PER_BYTE], strict=True)
    return ", ".join(f"{name} ({size:.0f} tokens) {bits:.4f}" for name, size, bits in triples)


def one_corpus_each(rows: pd.DataFrame, factor: str) -> bool:
    """Whether this factor decides the data, as the length of a task does."""
    return bool((rows.groupby(factor)["corpus_sha256"].nunique() == 1).all())


def chosen_values(results: Results) -> Iterator[str]:
    """Cautions about hyperparameters that were chosen for each combination."""
    keys = ", ".join(sorted(results.tuned))
    unknown = sum(cell["chosen"] is None for tuning in results.tunings for cell in tuning["cells"])
    if unknown:
        yield f"{several(unknown, 'combination')} left out: no value of {keys} finished with every seed."
    edges = sum(cell["at_edge"] for tuning in results.tunings for cell in tuning["cells"])
    if edges:
        yield (
            f"{several(edges, 'combination')} chose the first or last value listed for {keys}: a better "
            "value may lie outside the list."
        )


def several_looks(results: Results) -> Iterator[str]:
    """Cautions about a sweep that adds seeds until it is sure."""
    if not results.looks.complete:
        yield "The sweep still adds seeds to options without a verdict: all verdicts are provisional."
    if len(results.looks.seeds) > 1:
        yield (
            f"The sweep looked at its results {len(results.looks.seeds)} times. The intervals account "
            "for all its looks, and are wider than those of a sweep that looks once."
        )


def unseparated(statistics: Statistics) -> Iterator[str]:
    """Cautions about choices and runs that the statistics leave out."""
    for factor in statistics.factors:
        if not factor.designed:
            yield (
                f"{factor.name} takes {len(factor.levels)} values: it distinguishes combinations, but "
                "has no main effect here."
            )
    if statistics.repeated:
        yield (
            f"{several(statistics.repeated, 'run')} left out of the statistics: the same combination "
            "and seed was run again later."
        )
    alone = [f"{d.factor}={d.option}" for d in statistics.differences if not d.contexts]
    if alone:
        yield (
            f"{', '.join(alone)}: no run is alike in all else to one of the baseline, so these runs "
            "cannot separate the option from the other choices."
        )


def of_this_text(statistics: Statistics, texts: OverTexts) -> Iterator[str]:
    """A caution about verdicts that hold for this validation text, and perhaps for no other."""
    doubtful = [
        f"{d.factor}={d.option}"
        for d in statistics.differences
        if d.verdict in (BETTER, WORSE)
        and (over := texts.get((d.factor, d.option)))
        and over.low <= 0 <= over.high
    ]
    if doubtful:
        yield (
            f"{', '.join(doubtful)}: on another text of this kind and length the difference could have "
            "the other sign (block bootstrap over the validation text)."
        )


def doubtful_noise(statistics: Statistics) -> Iterator[str]:
    """Cautions about an estimate of the seed noise from few runs."""
    found = statistics.noise
    if found.df < 5:
        yield "The seed noise is estimated from few replicates, so the intervals are wide."
    alone = int((statistics.cells["n"] == 1).sum())
    if alone:
        yield (
            f"{several(alone, 'combination')} with a single seed: the statistics assume the noise of "
            "the other combinations."
        )
    if found.unequal:
        noisiest = statistics.cells.sort_values("sd").dropna(subset="sd").iloc[-1]
        other = [f for f in statistics.factors if noisiest[f.name] != f.baseline]
        choices = ", ".join(f"{f.name}={noisiest[f.name]}" for f in other) or "the baseline"
        yield (
            "The seed noise differs between combinations (Bartlett's test, p < 0.01); it is largest in "
            f"{choices}. Intervals use the own spread of the two combinations where that is wider. The "
            "error rates of docs/statistics.md are not promised then."
        )
