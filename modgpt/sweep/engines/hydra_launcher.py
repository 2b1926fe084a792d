"""The engine for all other Hydra launchers (submitit, basic, …): they run, we watch."""

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
    """Runs jobs with a Hydra launcher and follows their progress in their folders.

    Each job gets its folder as `job_folder`. There it claims the job, skips it or resumes it (see
    `modgpt.sweep.requeue`).

    Args:
        launcher: a configured launcher.
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
                while any(held(entry.folder) for entry in jobs):  # processes of other sweeps run them
                    time.sleep(POLL_SECONDS)
        except Interrupted as stop:  # raised by a job that runs in this process
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
        elif self.submitit:  # its jobs go on without this process
            progress.elsewhere = [*progress.waiting, *(job.entry for job in progress.running)]
        show(progress)
        return progress

    def launch(self, jobs: Sequence[Planned]) -> None:
        """Build the launcher again for this sweep's folder, where it writes its files, and call it."""
        folder = jobs[0].folder.parent
        config = self.launcher.config.copy()
        with open_dict(config):
            config.hydra.sweep.dir = str(folder)
        launcher = Plugins.instance().instantiate_launcher(
            config=config,
            hydra_context=self.launcher.hydra_context,
            task_function=self.launcher.task_function,
        )
        there = assignment("hydra.sweep.dir", folder)  # the jobs create this folder as well
        overrides = [[*e.job.overrides, assignment("job_folder", e.folder), there] for e in jobs]
        try:
            with submitit_adapted() if self.submitit else nullcontext():
                launcher.launch(overrides, initial_job_idx=0)
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(f"hydra/launcher={self.name}: {error}") from error


@contextmanager
def submitit_adapted() -> Iterator[None]:
    """Change two things about submitit's launcher, which submits all jobs and then asks for each result.

    `Job.results` raises an error when the process of a job was killed, and the launcher would abandon
    the other jobs. Here it only waits; the results are read from the folders. Ctrl-C in the sweep's
    terminal would also reach the processes of the local executor. SIGINT is ignored while they start,
    and they inherit that.
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
    """Reads the state of jobs from their folders."""

    def __init__(self, jobs: Sequence[Planned]) -> None:
        self.before = {entry: written(entry) for entry in jobs}
        self.began = dict[Planned, float]()
        self.open = list(jobs)
        self.finished: list[Planned] = []
        self.failed: list[tuple[Planned, str]] = []

    @contextmanager
    def shown_to(self, show: Callable[[Progress], None]) -> Iterator[None]:
        """Call `show` with the progress once a second, in a thread."""
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
        """The current state of all jobs."""
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
            else:  # also a job that failed in an earlier sweep and has not started again
                waiting.append(entry)
                continue
            self.open.remove(entry)
        return Progress(waiting, running, [], [*self.finished], [*self.failed])


def written(entry: Planned) -> int | None:
    """The time at which a job's record was last written; None without a record."""
    try:
        return (entry.folder / "result.json").stat().st_mtime_ns
    except FileNotFoundError:
        return None
