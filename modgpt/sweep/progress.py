"""Where a sweep stands: its jobs sorted by what has become of them."""

from __future__ import annotations

import json
import signal
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from modgpt.runs.files import write_json
from modgpt.runs.record import read_result
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


def latest(entry: Planned) -> dict[str, Any]:
    """The record of a running job as it stands, empty before there is one."""
    try:
        return json.loads((entry.folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def record_ended(entry: Planned, status: str, reason: str) -> None:
    """Mark how a job ended that could not do so itself, killed perhaps, or saw it differently."""
    try:
        record = read_result(entry.folder)
    except ValueError:
        record = {"choices": entry.job.choices, "overrides": entry.job.overrides,
                  "seed": entry.job.config.seed}  # fmt: skip
    with suppress(OSError):  # the sweep goes on with its other jobs
        entry.folder.mkdir(parents=True, exist_ok=True)
        write_json(entry.folder / "result.json", record | {"status": status, "reason": reason})
