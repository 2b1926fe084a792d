"""A report that is written again while jobs run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from modgpt.compare.columns import RUNNING
from modgpt.compare.comparison import (
    Comparison,
    check_packages,
    out_folder,
    print_comparison,
    read_comparison,
    write_comparison,
)
from modgpt.console import Output
from modgpt.text import visible

QUIET_SECONDS = 10.0  # until the second look, when no job runs
STALE_SECONDS = 300  # without a heartbeat, after which a job counts as killed


def watch(
    folders: Sequence[Path],
    out: Path | None,
    seconds: float,
    console: Console | None = None,
    figures: str | None = None,
    sleep: Callable[[float], Any] = time.sleep,
    **options: Any,
) -> Path:
    """Write the report again and again until no job runs any more; print the summary at the end.

    A sweep begins its next job a moment after one has ended. So it counts as done when two looks after
    each other find no job that runs.

    Args:
        folders, options: as for `read_comparison`.
        out: where to write; None for the first of the folders.
        seconds: between two looks.
        console: where to print; None for the standard output.
        figures: also write the figures at the end, in this format.
        sleep: waits.

    Returns:
        The report.

    Raises:
        UserError: as `compare`.
    """
    check_packages()
    console, out = console or Output(), out_folder(folders, out)
    quiet = 0  # looks in a row that found no job running
    while True:
        found = read_comparison(folders, **options)
        running = going_on(found)
        quiet = 0 if running else quiet + 1
        if quiet == 2:
            report = write_comparison(found, out, figures)
            print_comparison(console, found, report)
            return report
        report = write_comparison(found, out, refresh=seconds)
        now, done = datetime.now(), len(found.everything.finished)
        state = f"{now:%H:%M:%S}  {done} finished, {running} running  {visible(report)}"
        console.print(state, markup=False, highlight=False, soft_wrap=True)
        sleep(seconds if running else min(seconds, QUIET_SECONDS))


def going_on(found: Comparison) -> int:
    """The number of jobs that run. The record of a killed one says so too, but its lease is old."""
    table = found.everything.table
    return sum(alive(Path(path)) for path in table.loc[table["status"] == RUNNING, "path"])


def alive(run: Path) -> bool:
    """Whether a process has lately shown that it works on a run."""
    try:
        beat = (run / "lease.json").stat().st_mtime
    except OSError:
        return False
    return time.time() - beat < STALE_SECONDS
