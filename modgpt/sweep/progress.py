"""Where a sweep stands: its jobs sorted by what has become of them."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from modgpt.errors import UserError
from modgpt.runs.record import RunRecord, Status, read_record, write_record
from modgpt.runs.session import SIGNALS
from modgpt.sweep.plan import Planned


@dataclass(eq=False)
class Running:
    """A job under way, since a moment of the monotonic clock."""

    entry: Planned
    since: float


@dataclass
class Progress:
    """The jobs that were to run; `elsewhere` are those another process holds."""

    waiting: deque[Planned]
    running: list[Running] = field(default_factory=list)
    elsewhere: list[Planned] = field(default_factory=list)
    finished: list[Planned] = field(default_factory=list)
    failed: list[tuple[Planned, str]] = field(default_factory=list)


class Engine(Protocol):
    """Runs jobs: processes on this machine, a cluster, another library's launcher.

    Attributes:
        n_jobs: jobs at once; None where the engine does not know.
        threads: CPU threads of each job; None for all that its machine gives it.
        interrupted: the signal that has asked it to end; None where there was none.
    """

    n_jobs: int | None
    threads: int | None
    interrupted: int | None

    def run(self, jobs: Sequence[Planned], show: Callable[[Progress], None]) -> Progress:
        """Run the jobs in this order; tell `show` about once a second where they stand."""
        ...


def answered() -> list[signal.Signals]:
    """The signals that ask a sweep to end: not those that are ignored from outside, as by nohup."""
    return [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]


def latest(entry: Planned) -> RunRecord | None:
    """The record of a job as it stands; None before there is a readable one."""
    try:
        return read_record(entry.folder)
    except UserError:
        return None


def record_ended(entry: Planned, status: Status, reason: str) -> None:
    """Mark how a job ended that could not do so itself, for example because it was killed."""
    record = latest(entry) or RunRecord(
        status=status,
        choices=entry.job.choices,
        overrides=entry.job.overrides,
        seed=entry.job.config.seed,
    )
    with suppress(OSError):  # the sweep goes on with its other jobs
        entry.folder.mkdir(parents=True, exist_ok=True)
        write_record(entry.folder, replace(record, status=status, reason=reason))
