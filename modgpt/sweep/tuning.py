"""Fair hyperparameters: each combination gets its best values, chosen on seeds that are not reported."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from hydra.core.override_parser.types import Override
from rich.table import Table

from modgpt.config.compose import compose_job
from modgpt.config.keys import SEEDS
from modgpt.errors import UserError
from modgpt.files import write_json
from modgpt.sweep.design import TUNED, TUNING, expand
from modgpt.sweep.display import make_console
from modgpt.sweep.launch import Ended, run_sweep, sweep_folder, with_name
from modgpt.sweep.progress import Engine, latest
from modgpt.sweep.selection import Cell, choose


def run_tuned(
    jobs: Sequence[Sequence[str]],
    tune: Sequence[Override],
    seeds: Sequence[int],
    make_engine: Callable[[int], Engine],
) -> int:
    """Two sweeps, one to choose and one to report; returns the exit code.

    Args:
        jobs: the overrides of every job to report.
        tune: lists of candidate values; all their combinations are tried.
        seeds: to choose on.
        make_engine: makes an engine for a number of jobs.

    Raises:
        UserError: a job is wrong, sets what is to be tuned, or reports a seed that chooses.
    """
    jobs = with_name(jobs)
    values = {" ".join(candidate): candidate for candidate in expand(tune, "grid", {})}
    candidates = list(values)
    keys = [override.get_key_element() for override in tune]
    cells = list(dict.fromkeys(without_seed(job) for job in jobs))
    check(jobs, keys, seeds)
    trials = {
        (cell, candidate): [[*cell, *values[candidate], f"seed={seed}"] for seed in seeds]
        for cell in cells
        for candidate in candidates
    }
    flat = [overrides for listed in trials.values() for overrides in listed]
    ended = run_sweep(flat, make_engine(len(flat)), below=TUNING)
    if ended.dry:
        run_sweep(jobs, make_engine(len(jobs)))
        print(f"of these, each combination with its best of: {', '.join(candidates)}")
        return 0
    if ended.code > 128:
        return ended.code
    losses = losses_of(trials, ended)
    chosen = [choose(cell, {name: losses[cell, name] for name in candidates}) for cell in cells]
    config = compose_job(jobs[0]).config
    sweep = sweep_folder(Path(config.sweep_dir), config.sweep_name)
    content = {"keys": keys, "seeds": list(seeds), "cells": [asdict(cell) for cell in chosen]}
    write_json(sweep / TUNED, content)
    show(chosen, candidates)
    best = {tuple(cell.overrides): cell.chosen for cell in chosen}
    reported = [[*job, *values[name]] for job in jobs if (name := best[without_seed(job)])]
    if not reported:
        return 1
    code = run_sweep(reported, make_engine(len(reported))).code
    return code or int(len(reported) < len(jobs))


def check(jobs: Sequence[Sequence[str]], keys: Sequence[str], seeds: Sequence[int]) -> None:
    """Refuse jobs that would make the choice unfair or void."""
    for override in {override for job in jobs for override in job}:
        key, _, value = override.partition("=")
        if key in keys:
            raise UserError(f"{override}: this sweep chooses {key} itself (hydra.sweeper.tune)")
        if key in SEEDS and value in map(str, seeds):
            raise UserError(
                f"{override} is one that hyperparameters are chosen on (hydra.sweeper.tune_seeds): "
                "report others, or the comparison is of those that were lucky"
            )
    if not seeds:
        raise UserError("hydra.sweeper.tune needs hydra.sweeper.tune_seeds to choose on, such as [101]")


def without_seed(job: Sequence[str]) -> tuple[str, ...]:
    return tuple(override for override in job if override.partition("=")[0] not in SEEDS)


def losses_of(
    trials: dict[tuple[tuple[str, ...], str], list[list[str]]], ended: Ended
) -> dict[tuple[tuple[str, ...], str], float | None]:
    """The mean final loss of each cell with each candidate, None where a seed did not finish."""
    entries, means = iter(ended.jobs), {}
    for key, listed in trials.items():
        records = [latest(next(entries)) for _ in listed]
        losses = [float(r.final_val_loss or 0) for r in records if r is not None and r.finished]
        done = len(losses) == len(records)
        means[key] = statistics.fmean(losses) if done else None
    return means


def show(cells: Sequence[Cell], candidates: Sequence[str]) -> None:
    """Which candidate won for which combination."""
    table = Table(title="chosen on seeds that are not reported", header_style="bold")
    table.add_column("combination", overflow="fold")
    for candidate in candidates:
        table.add_column(candidate, justify="right")
    same = set.intersection(*(set(cell.overrides) for cell in cells)) if len(cells) > 1 else set()
    for cell in cells:
        name = " ".join(override for override in cell.overrides if override not in same)
        row = []
        for candidate in candidates:
            loss = cell.losses[candidate]
            text = "-" if loss is None else f"{loss:.4f}"
            row.append(f"[bold]{text}[/bold]" if candidate == cell.chosen else text)
        table.add_row(f"{name}{'  (at the edge)' if cell.at_edge else ''}", *row)
    make_console().print(table)
