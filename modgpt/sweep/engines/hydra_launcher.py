"""The engine for every other launcher of Hydra's (submitit, basic, …): it runs the jobs, we watch."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

from modgpt.config.overrides import assignment
from modgpt.errors import UserError
from modgpt.runs.lease import held
from modgpt.runs.record import status_of
from modgpt.runs.session import Interrupted
from modgpt.sweep.plan import Planned
from modgpt.sweep.progress import Progress, Running, latest, record_ended

POLL_SECONDS = 1.0


class HydraLauncher:
    """Hands the jobs to a launcher of Hydra's and reads in their folders what becomes of them.

    Claiming, skipping and resuming live in the job's own folder, which each job is told by `job_folder`
    (see `modgpt.sweep.requeue`).

    Args:
        launcher: set up.
    """

    def __init__(self, launcher: Launcher) -> None:
        self.launcher: Any = launcher
        self.name = str(self.launcher.config.hydra.runtime.choices["hydra/launcher"])
        self.submitit = self.name.startswith("submitit_")
        self.n_jobs = self.threads = None
        self.interrupted: int | None = None

    def run(self, jobs: Sequence[Planned], show: Callable[[Progress], None]) -> Progress:
        """Run the jobs; returns where they ended.

        Raises:
            UserError: the launcher cannot start them.
        """
        if not jobs:
            return Progress(waiting=deque())
        watch = Watch(jobs)
        try:
            with watch.shown_to(show):
                self.launch(jobs)
                while any(held(entry.folder) for entry in jobs):  # by other sweeps' processes
                    time.sleep(POLL_SECONDS)
        except Interrupted as stop:  # a job in this process
            self.interrupted = stop.signum
        except (KeyboardInterrupt, SystemExit):
            self.interrupted = signal.SIGINT
        progress = watch.progress()
        if not self.interrupted:
            for entry in [e for e in progress.waiting if status_of(e.folder) != "interrupted"]:
                reason = "its process ended without a result"
                record_ended(entry, "failed", reason)
                progress.waiting.remove(entry)
                progress.failed.append((entry, reason))
        elif self.submitit:  # its jobs do not need us
            progress.elsewhere = [*progress.waiting, *(job.entry for job in progress.running)]
        show(progress)
        return progress

    def launch(self, jobs: Sequence[Planned]) -> None:
        """Call the launcher, made anew for this sweep's folder: its own files go there."""
        folder = jobs[0].folder.parent
        config = self.launcher.config.copy()
        with open_dict(config):
            config.hydra.sweep.dir = str(folder)
        launcher = Plugins.instance().instantiate_launcher(
            config=config,
            hydra_context=self.launcher.hydra_context,
            task_function=self.launcher.task_function,
        )
        there = assignment("hydra.sweep.dir", folder)  # jobs make this folder, too
        overrides = [[*e.job.overrides, assignment("job_folder", e.folder), there] for e in jobs]
        try:
            with submitit_adapted() if self.submitit else nullcontext():
                launcher.launch(overrides, initial_job_idx=0)
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"hydra/launcher={self.name}: {error}") from error


@contextmanager
def submitit_adapted() -> Iterator[None]:
    """Make submitit's launcher, which submits all jobs and then asks each for its result, fit for us.

    Asking raises for a job whose process was killed, and would leave the others: we only wait, and read
    the results in the folders. Ctrl-C at the sweep's terminal would reach the processes of the local
    executor, too: those that begin while it is ignored go on ignoring it.
    """
    from submitit import Job

    answer, results = signal.signal(signal.SIGINT, signal.SIG_IGN), Job.results

    def wait(job: Job[Any]) -> list[Any]:
        signal.signal(signal.SIGINT, answer)  # all have been submitted
        return [job.wait()]

    Job.results = wait  # type: ignore[method-assign]
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, answer)
        Job.results = results  # type: ignore[method-assign]


class Watch:
    """Reads where jobs stand from their folders."""

    def __init__(self, jobs: Sequence[Planned]) -> None:
        self.before = {entry: written(entry) for entry in jobs}
        self.began = dict[Planned, float]()
        self.open = list(jobs)
        self.finished: list[Planned] = []
        self.failed: list[tuple[Planned, str]] = []

    @contextmanager
    def shown_to(self, show: Callable[[Progress], None]) -> Iterator[None]:
        """Tell about once a second where the jobs stand, in a thread."""
        ended = threading.Event()

        def keep_showing() -> None:
            while not ended.wait(POLL_SECONDS):
                show(self.progress())

        thread = threading.Thread(target=keep_showing, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def progress(self) -> Progress:
        """Where the jobs stand now."""
        waiting, running = deque[Planned](), list[Running]()
        for entry in [*self.open]:
            if held(entry.folder):
                since = self.began.setdefault(entry, time.monotonic())
                running.append(Running(entry, since))
                continue
            record = latest(entry)
            if record is not None and record.status in ("finished", "partial"):
                self.finished.append(entry)
            elif record is not None and record.failed and written(entry) != self.before[entry]:
                self.failed.append((entry, str(record.reason)))
            else:  # also one that failed in an earlier sweep and has not begun again
                waiting.append(entry)
                continue
            self.open.remove(entry)
        return Progress(waiting, running, [], [*self.finished], [*self.failed])


def written(entry: Planned) -> int | None:
    """When a job's record was written last; None where there is none."""
    try:
        return (entry.folder / "result.json").stat().st_mtime_ns
    except FileNotFoundError:
        return None
