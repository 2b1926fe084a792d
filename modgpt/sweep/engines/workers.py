"""The engine `workers`: several jobs at the same time on this machine, each in its own process."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from typing import Any

import torch

from modgpt.errors import UserError
from modgpt.runs.lease import held
from modgpt.runs.record import status_of
from modgpt.runs.session import leave_terminal
from modgpt.sweep.job import DONE, HELD, INTERRUPTED, OUT_OF_MEMORY, work
from modgpt.sweep.plan import Planned
from modgpt.sweep.progress import Progress, Running, answered, latest, record_ended
from modgpt.training.hardware import available_cores

POLL_SECONDS = 0.5
GRACE_SECONDS = 30.0


@dataclass(eq=False)
class Worker(Running):
    """A running job and its process.

    Attributes:
        process: the process.
        device: index of the GPU.
        crowded: whether another job has shared the GPU with it.
        stopping: when it was told to stop; None if it was not.
    """

    process: ForkServerProcess
    device: int
    crowded: bool = False
    stopping: float | None = None


class Workers:
    """Runs `n_jobs` jobs at the same time until all have ended.

    Processes are forked from a server that has imported everything once. A crash, a kill or an exit
    affects only the job of that process. A job that ran out of GPU memory while it shared the GPU is run
    again alone.

    Args:
        most: number of jobs.
        n_jobs: jobs at the same time; None for one per core, or with GPUs `jobs_per_device` on each.
        timeout: seconds that a job may take; None for no limit.
        jobs_per_device: jobs at the same time on each GPU; None for 1. Refused without a GPU: `n_jobs`
            decides there.

    Raises:
        UserError: a number is out of range, or `jobs_per_device` is set without a GPU.
    """

    def __init__(
        self, most: int, n_jobs: int | None, timeout: float | None, jobs_per_device: int | None
    ) -> None:
        for name, value in (("n_jobs", n_jobs), ("jobs_per_device", jobs_per_device)):
            if value is not None and value < 1:
                raise UserError(f"hydra.launcher.{name} must be at least 1, got {value}")
        if timeout is not None and timeout <= 0:
            raise UserError(f"hydra.launcher.timeout must be positive, got {timeout}")
        gpus, cores = torch.cuda.device_count(), available_cores()
        if jobs_per_device is not None and not gpus:
            raise UserError(
                "hydra.launcher.jobs_per_device needs a CUDA device, and this machine has none: use "
                "hydra.launcher.n_jobs"
            )
        self.devices = max(1, gpus)
        self.has_gpus = gpus > 0
        room = gpus * (jobs_per_device or 1) if gpus else cores
        self.n_jobs = n_jobs or max(1, min(room, most))
        self.threads = max(1, cores // self.n_jobs)
        self.timeout = timeout
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["modgpt.sweep.job"])
        # The server ignores SIGHUP: it must report how the jobs ended even if the terminal is closed. It
        # is started here so that it imports while the sweep is planned.
        hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        forkserver.ensure_running()
        signal.signal(signal.SIGHUP, hangup)
        self.interrupted: int | None = None
        self.alone: deque[Planned] = deque()  # jobs to run with a GPU for themselves

    def run(self, jobs: Sequence[Planned], show: Callable[[Progress], None]) -> Progress:
        """Run the jobs; returns their final state.

        Args:
            jobs: in the order in which they start.
            show: called twice a second, and at the end.
        """
        progress = Progress(waiting=deque(jobs))
        running: list[Worker] = []
        previous = {s: signal.signal(s, self.interrupt) for s in answered()}
        try:
            while running or (
                (progress.waiting or self.alone or progress.elsewhere) and not self.interrupted
            ):
                self.start(progress, running)
                progress.running = [*running]
                show(progress)
                self.collect(progress, running)
            progress.running = []
            progress.waiting.extend(self.alone)  # empty unless the sweep was interrupted
            show(progress)
            return progress
        finally:
            for job in running:
                job.process.terminate()
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    def interrupt(self, signum: int, _: Any) -> None:
        """Note a signal: running jobs save a checkpoint and stop, and no job starts."""
        if signum == signal.SIGHUP:
            leave_terminal()
        self.interrupted = signum

    def start(self, progress: Progress, running: list[Worker]) -> None:
        """Start jobs while there is room; take back those that another process no longer runs."""
        if self.interrupted:
            return
        for entry in [e for e in progress.elsewhere if not held(e.folder)]:
            progress.elsewhere.remove(entry)
            if status_of(entry.folder) == "finished":
                progress.finished.append(entry)
            else:
                progress.waiting.append(entry)
        if self.alone:  # nothing else starts, so that a GPU becomes free
            if not running:
                self.begin(self.alone.popleft(), running)
            return
        while progress.waiting and len(running) < self.n_jobs:
            self.begin(progress.waiting.popleft(), running)

    def begin(self, entry: Planned, running: list[Worker]) -> None:
        """Start a job on the GPU with the fewest jobs."""
        load = [sum(job.device == device for job in running) for device in range(self.devices)]
        device = load.index(min(load))
        given = device if self.has_gpus else None
        process = self.context.Process(target=work, args=(entry.job, entry.folder, given))
        process.start()
        job = Worker(entry, time.monotonic(), process, device)
        running.append(job)
        together = [other for other in running if other.device == device]
        for other in together:
            other.crowded |= len(together) > 1

    def collect(self, progress: Progress, running: list[Worker]) -> None:
        """Stop jobs over their timeout; handle ended jobs, waiting at most `POLL_SECONDS` for one."""
        now = time.monotonic()
        for job in running:
            late = self.timeout is not None and now - job.since > self.timeout
            if job.stopping is None and (late or self.interrupted):
                job.process.terminate()  # saves a checkpoint and stops
                job.stopping = now
            elif job.stopping is not None and now - job.stopping > GRACE_SECONDS:
                job.process.kill()
        if not running:
            time.sleep(POLL_SECONDS)  # other processes run the remaining jobs
        wait([job.process.sentinel for job in running], timeout=POLL_SECONDS)
        for job in [job for job in running if not job.process.is_alive()]:
            running.remove(job)
            job.process.join()
            self.sort(progress, job)

    def sort(self, progress: Progress, job: Worker) -> None:
        """Record an ended job as finished or failed, or queue it again."""
        entry, code = job.entry, job.process.exitcode
        if code == DONE:
            progress.finished.append(entry)
        elif code == HELD:
            progress.elsewhere.append(entry)
        elif self.interrupted and (job.stopping is not None or code == INTERRUPTED):
            if status_of(entry.folder) == "failed":  # perhaps only because it was stopped
                record_ended(entry, "interrupted", self.reason(job, code))
            progress.waiting.append(entry)  # for the next start of the sweep
        elif code == OUT_OF_MEMORY and job.crowded:
            # Not a failure: the sweep may be stopped before the second try.
            record_ended(entry, "interrupted", "out of memory beside other jobs")
            self.alone.append(entry)
        else:
            reason = self.reason(job, code)
            record_ended(entry, "failed", reason)
            progress.failed.append((entry, reason))

    def reason(self, job: Worker, code: int | None) -> str:
        """Why a job failed: its own record if it wrote one, else how its process ended."""
        if job.stopping is not None and not self.interrupted:
            return f"over its timeout of {self.timeout:g} s"
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        record = latest(job.entry)
        return str(record.reason) if record and record.failed else f"ended with exit code {code}"
