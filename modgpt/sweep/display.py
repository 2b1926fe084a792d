"""What a person sees of a sweep: the plan before, a live table meanwhile, the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from modgpt.console import Output, redraws
from modgpt.sweep.plan import Planned
from modgpt.sweep.progress import Progress, latest
from modgpt.training.summary import shown


def make_console() -> Console:
    """The standard output; a file has no width, and names of jobs need some."""
    console = Output()
    return console if console.is_terminal else Output(width=160)


def plan_table(jobs: Sequence[Planned], per_flop: float | None) -> Table:
    """What will run, for a person to read before it does."""
    table = Table(title="jobs of this sweep", header_style="bold")
    for name in ("job", "status", "parameters", "active", "FLOPs/token", "ffn.hidden", "estimate"):
        table.add_column(name, justify="left" if name in ("job", "status") else "right", overflow="fold")
    for entry in jobs:
        if entry.skipped is not None or entry.cost is None:
            table.add_row(entry.folder.name, f"SKIPPED: {entry.skipped}", *[""] * 5, style="dim")
            continue
        estimate = (
            "" if per_flop is None or entry.status == "finished" else f"{entry.flops * per_flop:,.0f} s"
        )
        cost = entry.cost
        numbers = [f"{cost.parameters:,}", f"{cost.active_parameters:,}", f"{cost.flops:,.0f}"]
        hidden = f"{entry.hidden:,}" if entry.hidden else ""
        table.add_row(entry.folder.name, entry.status or "new", *numbers, hidden, estimate)
    return table


def show_end(console: Console, jobs: Sequence[Planned], progress: Progress, failed_before: int) -> None:
    """How the sweep ended, and where to read why a job failed."""
    for entry, reason in progress.failed:
        logs = [entry.folder / "log.txt", entry.folder.parent / ".submitit"]
        where = next((f"; see {shown(path)}" for path in logs if path.exists()), "")
        print(f"FAILED {shown(entry.folder)}: {reason}{where}", file=sys.stderr)
    finished_before = sum(entry.status == "finished" for entry in jobs)
    skipped = sum(entry.skipped is not None for entry in jobs)
    parts = [f"{len(progress.finished)} finished", f"{len(progress.failed)} failed",
             f"{finished_before} were finished before", f"{skipped} skipped"]  # fmt: skip
    if failed_before:
        parts.append(f"{failed_before} failed before (retry_failed=true runs them again)")
    console.print(", ".join(parts), highlight=False)


class Display:
    """One live table on a terminal, a line per ended job elsewhere."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total = console, total
        self.live = Live(console=console, refresh_per_second=4) if redraws(console) else None
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
                record = latest(entry)
                loss = record and record.final_val_loss
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
        for name in ("running", "step", "val/loss so far", "left"):
            table.add_column(name, justify="left" if name == "running" else "right")
        for job in progress.running:
            record = latest(job.entry)
            step, loss = (record.final_step or 0, record.final_val_loss) if record else (0, None)
            steps = job.entry.steps
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
