"""A search: Optuna draws trials, an engine runs them, and the study records their losses."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.core.override_parser.types import Override
from optuna import logging as optuna_logging
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console
from rich.table import Table

from modgpt.config.compose import compose_job
from modgpt.errors import UserError
from modgpt.sweep.display import make_console
from modgpt.sweep.launch import run_sweep, sweep_folder, with_name
from modgpt.sweep.plan import Planned, plan
from modgpt.sweep.progress import Engine, latest
from modgpt.sweep.search.distributions import space_of
from modgpt.sweep.search.study import SAMPLERS, Study
from modgpt.training.summary import shown

AT_ONCE = 4  # trials drawn together, if the engine does not know how many jobs it runs at once
POLL_SECONDS = 1.0
BEST = 10  # trials in the table at the end


@dataclass(frozen=True)
class Settings:
    """The settings of a search.

    Attributes:
        n_trials: number of trials of the study, over all processes and starts.
        sampler: one of `SAMPLERS`.
        seed: of the sampler.
        batch: trials drawn together; None for as many as the engine runs at the same time.

    Raises:
        UserError: a value is out of range.
    """

    n_trials: int
    sampler: str
    seed: int
    batch: int | None

    def __post_init__(self) -> None:
        for name, value, least in (("n_trials", self.n_trials, 1), ("batch", self.batch, 1),
                                   ("seed", self.seed, 0)):  # fmt: skip
            if value is not None and value < least:
                raise UserError(f"hydra.sweeper.{name} must be at least {least}, got {value}")
        if self.sampler not in SAMPLERS:
            raise UserError(
                f"hydra.sweeper.sampler must be {' or '.join(SAMPLERS)}, got {self.sampler!r}"
            )


def search(
    overrides: Sequence[Override], settings: Settings, make_engine: Callable[[int], Engine]
) -> int:
    """Run the trials that the study does not have yet; returns the exit code.

    Args:
        overrides: parsed; lists, ranges and intervals among them are the search space.
        settings: of the search.
        make_engine: builds an engine for n trials.

    Returns:
        0; 1 if a trial failed; 128 + n if signal n interrupted the search.

    Raises:
        UserError: the space has a mistake, or differs from the study's. Nothing has been run.
    """
    optuna_logging.set_verbosity(optuna_logging.WARNING)
    space = space_of(overrides)
    space = replace(space, fixed=with_name([space.fixed])[0])
    probes = space.probes()
    first = compose_job(probes[0]).config
    sweep = sweep_folder(Path(first.sweep_dir), first.sweep_name)
    job = plan(probes, sweep)[0].folder.name  # raises an error if any value is wrong
    engine = make_engine(settings.n_trials)
    size = settings.batch or engine.n_jobs or AT_ONCE
    console = make_console()
    study = Study(sweep, space, job, settings.sampler, settings.seed, dry=first.dry_run)
    with study:
        if first.retry_failed:
            study.retry()
        announce, waiting = True, False  # only the first batch prints its plan
        while (trials := study.take(size, settings.n_trials)) or study.waits_for_others():
            if not trials:
                if not waiting:
                    console.print("waiting for the trials of other processes")
                waiting = True
                time.sleep(POLL_SECONDS)
                continue
            numbers = ", ".join(str(trial.number) for trial in trials)
            console.print(f"trials {numbers} of {settings.n_trials}", highlight=False)
            ended = run_sweep(
                [space.overrides(trial.params) for trial in trials], engine, announce=announce
            )
            if ended.dry:
                return 0
            told = [tell(study, *pair, console) for pair in zip(trials, ended.jobs, strict=True)]
            if ended.code > 128 or not all(told):
                return ended.code or 1  # the next start continues the open trials
            announce = False
        found = study.counted()
    show_best(console, found, sweep)
    return int(any(t.state == TrialState.FAIL and not t.user_attrs.get("skipped") for t in found))


def tell(study: Study, trial: Trial, entry: Planned, console: Console) -> bool:
    """Report the result of a trial's job to the study; returns False if the job has not ended."""
    record = latest(entry)
    params = " ".join(f"{key}={value}" for key, value in trial.params.items())
    about = {"job": entry.folder.name}
    if entry.skipped is not None or (record is not None and record.failed):
        skipped = entry.skipped is not None
        reason = entry.skipped or str(record and record.reason)
        study.tell(trial, None, about | {"reason": reason, "skipped": skipped})
        outcome = f"{'SKIPPED' if skipped else 'FAILED'}: {reason}"
    elif record is not None and record.finished:
        assert record.final_val_loss is not None
        study.tell(trial, record.final_val_loss, about)
        outcome = f"val/loss {record.final_val_loss:.4f}"
    else:
        return False
    line = f"trial {trial.number}  {outcome}  {params}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)
    return True


def show_best(console: Console, trials: Sequence[FrozenTrial], sweep: Path) -> None:
    """Print the trials with the lowest losses, and the folder of all trials."""
    complete = sorted(
        (t for t in trials if t.state == TrialState.COMPLETE), key=lambda t: (t.value, t.number)
    )
    table = Table(title="best trials", header_style="bold")
    table.add_column("trial", justify="right")
    table.add_column("val/loss", justify="right")
    keys = list(dict.fromkeys(key for trial in complete for key in trial.params))
    for key in keys:
        table.add_column(key, overflow="fold")
    for trial in complete[:BEST]:
        values = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in map(trial.params.get, keys)]
        table.add_row(str(trial.number), f"{trial.value:.4f}", *values)
    if complete:
        console.print(table)
    failed = sum(trial.state == TrialState.FAIL for trial in trials)
    console.print(
        f"{len(complete)} trials complete, {failed} failed, in {shown(sweep)}", highlight=False
    )
