"""Runs the jobs of a sweep, several at once, each in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from typing import Any

from modgpt.files import write_json
from modgpt.record import read_result
from modgpt.sweep.lease import held
from modgpt.sweep.plan import Planned
from modgpt.sweep.worker import DONE, HELD, status, work

POLL_SECONDS = 0.5
GRACE_SECONDS = 30.0


@dataclass
class Running:
    """A job under way."""

    entry: Planned
    process: ForkServerProcess
    since: float
    stopping: float | None = None


@dataclass
class Progress:
    """Where the sweep stands, for the display."""

    waiting: deque[Planned]
    running: list[Running] = field(default_factory=list)
    elsewhere: list[Planned] = field(default_factory=list)
    finished: list[Planned] = field(default_factory=list)
    failed: list[tuple[Planned, str]] = field(default_factory=list)


class Pool:
    """Keeps `n_jobs` jobs running until none is left.

    Processes are forked from a server that has imported everything once. Whatever happens to one (a
    crash, a kill, an exit) costs that job alone.

    Args:
        n_jobs: jobs at once.
        timeout: seconds a job may take, None for any number.
    """

    def __init__(self, n_jobs: int, timeout: float | None) -> None:
        self.n_jobs, self.timeout = n_jobs, timeout
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["modgpt.sweep.worker"])
        forkserver.ensure_running()  # imports while the sweep is being planned
        self.interrupted = False

    def run(self, jobs: Sequence[Planned], threads: int, show: Callable[[Progress], None]) -> Progress:
        """Run the jobs; returns where they ended.

        Args:
            jobs: in the order to begin them.
            threads: CPU threads of each.
            show: called twice a second, and at the end.
        """
        progress = Progress(waiting=deque(jobs))
        previous = {s: signal.signal(s, self.interrupt) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            while progress.running or (
                (progress.waiting or progress.elsewhere) and not self.interrupted
            ):
                self.start(progress, threads)
                self.collect(progress)
                show(progress)
        finally:
            for signum, handler in previous.items():
                signal.signal(signum, handler)
        show(progress)
        return progress

    def interrupt(self, *_: Any) -> None:
        """Ask for an end: running jobs save and stop, none is begun."""
        self.interrupted = True

    def start(self, progress: Progress, threads: int) -> None:
        """Begin jobs while there is room; look again at those that another process holds."""
        if self.interrupted:
            return
        for entry in [e for e in progress.elsewhere if not held(e.folder)]:
            progress.elsewhere.remove(entry)
            if status(entry.folder) == "finished":
                progress.finished.append(entry)
            else:
                progress.waiting.append(entry)
        while progress.waiting and len(progress.running) < self.n_jobs:
            entry = progress.waiting.popleft()
            arguments = ([*entry.job.overrides, f"threads={threads}"], entry.folder)
            process = self.context.Process(target=work, args=arguments)
            process.start()
            progress.running.append(Running(entry, process, time.monotonic()))

    def collect(self, progress: Progress) -> None:
        """Wait a moment for jobs to end, stop those that are over their time."""
        now = time.monotonic()
        for job in progress.running:
            late = self.timeout is not None and now - job.since > self.timeout
            if job.stopping is None and (late or self.interrupted):
                job.process.terminate()  # saves a checkpoint and stops
                job.stopping = now
            elif job.stopping is not None and now - job.stopping > GRACE_SECONDS:
                job.process.kill()
        if not progress.running:
            time.sleep(POLL_SECONDS)  # others hold what is left
        wait([job.process.sentinel for job in progress.running], timeout=POLL_SECONDS)
        for job in [job for job in progress.running if not job.process.is_alive()]:
            progress.running.remove(job)
            job.process.join()
            self.settle(progress, job)

    def settle(self, progress: Progress, job: Running) -> None:
        """Sort an ended job by how it ended."""
        entry, code = job.entry, job.process.exitcode
        if code == DONE:
            progress.finished.append(entry)
        elif code == HELD:
            progress.elsewhere.append(entry)
        elif self.interrupted and job.stopping is not None:
            progress.waiting.append(entry)  # for the next start of the sweep
        else:
            progress.failed.append((entry, self.mark_failed(job, code)))

    def mark_failed(self, job: Running, code: int | None) -> str:
        """Why a job failed, also into its record, where it could not write that itself."""
        try:
            record = read_result(job.entry.folder)
        except ValueError:
            record = {"choices": job.entry.job.choices, "overrides": job.entry.job.overrides,
                      "seed": job.entry.job.config.seed}  # fmt: skip
        reason = record.get("reason")
        if job.stopping is not None:
            reason = f"over its timeout of {self.timeout:g} s"
        elif code is not None and code < 0:
            reason = f"killed by {signal.Signals(-code).name}"
        elif record.get("status") != "failed":
            reason = f"ended with exit code {code}"
        job.entry.folder.mkdir(parents=True, exist_ok=True)
        write_json(job.entry.folder / "result.json", record | {"status": "failed", "reason": reason})
        return str(reason)


def latest(entry: Planned) -> dict[str, Any]:
    """The record of a running job as it stands, empty before there is one."""
    try:
        return json.loads((entry.folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
