"""A sweep from its jobs' overrides to its end: plan, table, engine, exit code."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus
from rich.console import Console

from modgpt.config.compose import compose_job
from modgpt.config.overrides import parse
from modgpt.errors import UserError
from modgpt.runs.folder import check_name
from modgpt.sweep.display import Display, make_console, plan_table, show_end
from modgpt.sweep.plan import Planned, plan, seconds_per_flop
from modgpt.sweep.progress import Engine, latest
from modgpt.sweep.settings import keep_settings, proposal, read_settings
from modgpt.training.hardware import Machine
from modgpt.training.summary import shown

FAILED = ("failed", "diverged")


@dataclass
class Ended:
    """How a sweep ended.

    Attributes:
        code: exit code: 0, 1 if a job failed, 128 + n if signal n interrupted it.
        jobs: one per list of overrides; the same object twice where two are the same job.
        dry: nothing has run, because only the plan was asked for.
    """

    code: int
    jobs: list[Planned]
    dry: bool = False


def run_sweep(
    all_overrides: Sequence[Sequence[str]],
    engine: Engine,
    below: str = "",
    announce: bool = True,
) -> Ended:
    """Plan, show, run.

    Args:
        all_overrides: the overrides of every job.
        engine: what runs them.
        below: a folder below the sweep's for these jobs, for what is not part of its results.
        announce: tell beforehand what will run.

    Raises:
        UserError: a job is wrong; nothing has been run.
    """
    all_overrides = with_name(all_overrides)
    first = compose_job(all_overrides[0]).config
    sweep = sweep_folder(Path(first.sweep_dir), first.sweep_name) / below
    settings = read_settings(sweep) or proposal(first, engine.threads)
    planned = plan(all_overrides, sweep)
    jobs = list(dict.fromkeys(planned))
    open_jobs = to_run(jobs, first.retry_failed)
    console = make_console()
    if announce:
        show_plan(console, sweep, jobs, open_jobs, engine, settings)
        show_same_jobs(console, Path(first.sweep_dir), sweep, jobs)
    if first.dry_run:
        return Ended(0, planned, dry=True)
    if all(entry.skipped is not None for entry in jobs):
        raise UserError(f"no job of this sweep can run: {collapsed(jobs)}")
    if engine.threads is not None:  # else the first job's machine decides
        keep_settings(sweep, settings)
    with Display(console, len(open_jobs)) as display:
        progress = engine.run(open_jobs, display.show)
    failed_before = sum(e.status in FAILED and e not in open_jobs for e in jobs)
    show_end(console, jobs, progress, failed_before)
    again = f"the same command with sweep_name={first.sweep_name}"
    if engine.interrupted:
        still = f"{len(progress.elsewhere)} jobs go on by themselves; " if progress.elsewhere else ""
        console.print(f"interrupted; {still}{again} goes on with it", highlight=False, soft_wrap=True)
        return Ended(128 + engine.interrupted, planned)
    if progress.waiting:  # on a cluster
        many = f"{len(progress.waiting)} were stopped and not begun again"
        console.print(f"{many}; {again} goes on with them", highlight=False, soft_wrap=True)
    return Ended(1 if progress.failed or failed_before or progress.waiting else 0, planned)


def show_plan(
    console: Console,
    sweep: Path,
    jobs: Sequence[Planned],
    open_jobs: Sequence[Planned],
    engine: Engine,
    machine: Machine,
) -> None:
    """What will run, with the time it may take from three measured steps."""
    fitting = [entry for entry in open_jobs if entry.cost is not None]
    measured = seconds_per_flop(fitting[0], machine) if fitting else None
    per_flop = measured and measured / (engine.n_jobs or 1)
    console.print(plan_table(jobs, per_flop))
    line = f"{len(jobs)} jobs, {len(open_jobs)} to run"
    if engine.n_jobs:
        line += f", {engine.n_jobs} at once with {machine.threads} CPU threads each"
        if per_flop:
            line += f", about {sum(entry.flops for entry in open_jobs) * per_flop:,.0f} s in all"
    console.print(f"{line}, in {shown(sweep)}", highlight=False)
    if any(entry.skipped is not None for entry in jobs):
        console.print(f"skipped: {collapsed(jobs)}", highlight=False, markup=False, soft_wrap=True)


def show_same_jobs(console: Console, sweeps: Path, sweep: Path, jobs: Sequence[Planned]) -> None:
    """For a sweep that is new: which other one has most of its jobs, and how to go on with that."""
    if sweep.exists():
        return
    below = Path(*sweep.relative_to(sweeps).parts[1:])
    names = {entry.folder.name for entry in jobs}
    same = {
        other: len(names & {job.name for job in (other / below).glob("*/")})
        for other in sorted(sweeps.glob("*/"))
    }
    most = max(same, key=lambda other: same[other], default=None)
    if most is not None and same[most]:
        there = f"{same[most]} of these jobs are already in {shown(most / below)}"
        line = f"{there}: sweep_name={most.name} goes on with it"
        console.print(line, highlight=False, soft_wrap=True)


def job_returns(ended: Ended) -> list[JobReturn]:
    """The outcome in Hydra's terms: the value of a job is its final validation loss."""
    returns = []
    for entry in ended.jobs:
        record = latest(entry)
        done = JobReturn(overrides=entry.job.overrides, cfg=entry.job.config)
        if record is not None and record.finished:
            done.status, done.return_value = JobStatus.COMPLETED, record.final_val_loss
        else:
            reason = entry.skipped or (record and record.reason) or "it has not run"
            done.status, done.return_value = (
                JobStatus.FAILED,
                UserError(f"{entry.folder.name}: {reason}"),
            )
        returns.append(done)
    return returns


def folder_of(jobs: Sequence[Sequence[str]]) -> Path:
    """The folder of the sweep whose jobs have these overrides, its name among them."""
    config = compose_job(jobs[0]).config
    return sweep_folder(Path(config.sweep_dir), config.sweep_name)


def with_name(all_overrides: Sequence[Sequence[str]]) -> list[list[str]]:
    """The jobs' overrides with a name for the sweep, a new one where none is given.

    Raises:
        UserError: there are no jobs.
    """
    if not all_overrides:
        raise UserError("this sweep has no jobs: a glob or a range that it crosses is empty")
    given = any(parsed.key_or_group == "sweep_name" for parsed in parse(all_overrides[0]))
    name = [] if given else [f"sweep_name={new_name()}"]
    return [[*overrides, *name] for overrides in all_overrides]


def new_name() -> str:
    """A name that no other sweep can get, even when many start in the same second."""
    return f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(4)}"


def sweep_folder(parent: Path, name: str) -> Path:
    """The folder of a sweep.

    Raises:
        UserError: the name cannot name a folder.
    """
    check_name("sweep_name", name)
    return parent / name


def to_run(jobs: Sequence[Planned], retry_failed: bool) -> list[Planned]:
    """The jobs that are neither finished nor unfit nor, unless they are to be retried, failed."""
    closed = {"finished", "partial"} if retry_failed else {"finished", "partial", *FAILED}
    return [entry for entry in jobs if entry.skipped is None and entry.status not in closed]


def collapsed(jobs: Sequence[Planned]) -> str:
    """Why jobs cannot run: each reason once, with the number of jobs it holds for."""
    reasons = Counter(entry.skipped for entry in jobs if entry.skipped is not None)
    return "; ".join(f"{reason} ({n} jobs)" if n > 1 else str(reason) for reason, n in reasons.items())
