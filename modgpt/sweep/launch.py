"""A sweep from its jobs' overrides to its end: plan, table, pool, exit code."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from modgpt.composition import compose_job
from modgpt.errors import UserError
from modgpt.summary import shown
from modgpt.sweep.plan import (
    Planned,
    keep_settings,
    plan,
    plan_table,
    read_settings,
    record_skipped,
    seconds_per_flop,
)
from modgpt.sweep.pool import Pool, Progress, latest
from modgpt.training import best_precision


def launch(all_overrides: Sequence[Sequence[str]], n_jobs: int | None, timeout: float | None) -> int:
    """Run a sweep; returns its exit code: 0, 1 if a job failed, 130 if interrupted.

    Args:
        all_overrides: the overrides of every job.
        n_jobs: jobs at once; None for one per core.
        timeout: seconds a job may take; None for any number.

    Raises:
        UserError: a job is wrong; nothing has been run.
    """
    if n_jobs is not None and n_jobs < 1:
        raise UserError(f"hydra.launcher.n_jobs must be at least 1, got {n_jobs}")
    if timeout is not None and timeout <= 0:
        raise UserError(f"hydra.launcher.timeout must be positive, got {timeout}")
    first = compose_job(all_overrides[0]).config
    sweep = sweep_folder(Path(first.sweep_dir), first.sweep_name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    n_jobs = n_jobs or min(cores, len(all_overrides))
    pool = Pool(n_jobs, timeout)  # its server imports torch while we plan
    # Decided once and kept: sums depend on the threads, so a job that goes on must have as many.
    fixed = read_settings(sweep) or {
        "threads": first.threads or max(1, cores // n_jobs),
        "precision": best_precision(first.trainer.accelerator),
    }
    jobs = plan([with_precision(overrides, fixed) for overrides in all_overrides], sweep)
    open_jobs = to_run(jobs, first.retry_failed)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a file has no width; names of jobs need some
    show_plan(console, sweep, jobs, open_jobs, n_jobs, fixed["threads"])
    if first.dry_run:
        return 0
    fixed = keep_settings(sweep, fixed)
    for entry in jobs:
        if entry.skipped is not None:
            record_skipped(entry)
    with Display(console, len(open_jobs)) as display:
        progress = pool.run(open_jobs, fixed["threads"], display.show)
    failed_before = sum(e.status == "failed" and e not in open_jobs for e in jobs)
    show_end(console, jobs, progress, failed_before)
    if pool.interrupted:
        console.print("interrupted; the same command goes on with it")
        return 130
    return 1 if progress.failed or failed_before else 0


def show_plan(
    console: Console,
    sweep: Path,
    jobs: Sequence[Planned],
    open_jobs: Sequence[Planned],
    n_jobs: int,
    threads: int,
) -> None:
    """What will run, with the time it may take from three measured steps."""
    fitting = [entry for entry in jobs if entry.cost is not None]
    per_flop = seconds_per_flop(fitting[0], threads) / n_jobs if fitting else None
    console.print(plan_table(jobs, per_flop))
    total = sum(entry.flops for entry in open_jobs) * (per_flop or 0)
    console.print(
        f"{len(jobs)} jobs, {len(open_jobs)} to run, {n_jobs} at once with {threads} CPU threads each, "
        f"about {total:,.0f} s in all, in {shown(sweep)}",
        highlight=False,
    )


def show_end(console: Console, jobs: Sequence[Planned], progress: Progress, failed_before: int) -> None:
    """How the sweep ended, and where to read why a job failed."""
    for entry, reason in progress.failed:
        print(f"FAILED {shown(entry.folder)}: {reason}; see its log.txt", file=sys.stderr)
    finished_before = sum(entry.status == "finished" for entry in jobs)
    skipped = sum(entry.skipped is not None for entry in jobs)
    parts = [f"{len(progress.finished)} finished", f"{len(progress.failed)} failed",
             f"{finished_before} were finished before", f"{skipped} skipped"]  # fmt: skip
    if failed_before:
        parts.append(f"{failed_before} failed before (retry_failed=true runs them again)")
    console.print(", ".join(parts), highlight=False)


def sweep_folder(parent: Path, name: str | None) -> Path:
    """The folder of a sweep: named, or one that no other sweep can get.

    Raises:
        UserError: the name cannot name a folder.
    """
    if name is None:
        name = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(4)}"
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise UserError(f"sweep_name={name!r} cannot name a folder: leave out slashes")
    return parent / name


def with_precision(overrides: Sequence[str], fixed: dict[str, Any]) -> list[str]:
    """A job's overrides, with the precision that the sweep has decided for all."""
    given = any(override.startswith("trainer.precision=") for override in overrides)
    return [*overrides, *([] if given else [f"trainer.precision={fixed['precision']}"])]


def to_run(jobs: Sequence[Planned], retry_failed: bool) -> list[Planned]:
    """The jobs that are neither finished nor unfit nor, unless they are to be retried, failed."""
    closed = {"finished"} if retry_failed else {"finished", "failed"}
    return [entry for entry in jobs if entry.skipped is None and entry.status not in closed]


class Display:
    """One live table on a terminal, a line per ended job elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total = console, total
        self.live = Live(console=console, refresh_per_second=4) if console.is_terminal else None
        self.told: set[Path] = set()

    def __enter__(self) -> Display:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def show(self, progress: Progress) -> None:
        if self.live:
            self.live.update(self.table(progress))
            return
        ended = [(e, "finished") for e in progress.finished]
        ended += [(e, f"FAILED: {reason}") for e, reason in progress.failed]
        for entry, how in ended:
            if entry.folder not in self.told:
                self.told.add(entry.folder)
                loss = latest(entry).get("final_val_loss")
                number = f"  val/loss {loss:.4f}" if loss is not None and how == "finished" else ""
                place = f"[{len(self.told)}/{self.total}]"
                print(f"{place} {how}  {entry.folder.name}{number}", flush=True)

    def table(self, progress: Progress) -> Table:
        done, failed = len(progress.finished), len(progress.failed)
        title = (
            f"{done} of {self.total} done, {len(progress.running)} running, {failed} failed, "
            f"{len(progress.waiting)} waiting"
        )
        if progress.elsewhere:
            title += f", {len(progress.elsewhere)} held by another process"
        table = Table(title=title, header_style="bold")
        for name in ("running", "step", "val/loss", "left"):
            table.add_column(name, justify="left" if name == "running" else "right")
        for job in progress.running:
            record = latest(job.entry)
            step, steps = record.get("final_step") or 0, job.entry.job.config.trainer.max_steps
            loss = record.get("final_val_loss")
            table.add_row(
                job.entry.folder.name,
                f"{step}/{steps}",
                f"{loss:.4f}" if loss is not None else "-",
                time_left(job.since, step, steps),
            )
        for entry, reason in progress.failed[-5:]:
            table.add_row(f"FAILED {entry.folder.name}: {reason}", "", "", "", style="red")
        return table


def time_left(since: float, step: int, steps: int) -> str:
    """Seconds to the last step at the pace so far."""
    if not step:
        return "-"
    return f"{(time.monotonic() - since) / step * (steps - step):,.0f} s"
