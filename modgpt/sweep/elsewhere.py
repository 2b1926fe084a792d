"""The engine for every other Hydra launcher (submitit, joblib, basic, …): it runs the jobs, we watch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

from modgpt.composition import assignment
from modgpt.sweep.lease import held
from modgpt.sweep.plan import Planned
from modgpt.sweep.progress import Progress, Running, latest, record_failed
from modgpt.sweep.worker import status

POLL_SECONDS = 1.0


class HydraLauncher:
    """Hands the jobs to a launcher of Hydra's and reads in their folders what becomes of them.

    Claiming, skipping and resuming live in the job's own folder, which each job is told by `job_folder`.

    Args:
        launcher: set up.
    """

    def __init__(self, launcher: Launcher) -> None:
        self.launcher: Any = launcher
        self.n_jobs = self.threads = None
        self.interrupted = False

    def run(self, jobs: Sequence[Planned], show: Callable[[Progress], None]) -> Progress:
        """Run the jobs; returns where they ended."""
        if not jobs:
            return Progress(waiting=deque())
        with open_dict(self.launcher.config):  # what launchers write themselves goes beside the jobs
            self.launcher.config.hydra.sweep.dir = str(jobs[0].folder.parent)
        overrides = [[*entry.job.overrides, assignment("job_folder", entry.folder)] for entry in jobs]
        watch = Watch(jobs)
        ended = threading.Event()

        def keep_showing() -> None:
            while not ended.wait(POLL_SECONDS):
                show(watch.progress())

        thread = threading.Thread(target=keep_showing, daemon=True)
        thread.start()
        try:
            self.launcher.launch(overrides, initial_job_idx=0)
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            ended.set()
            thread.join()
        progress = watch.progress()
        if not self.interrupted:
            for entry in [e for e in progress.waiting if status(e.folder) != "interrupted"]:
                progress.waiting.remove(entry)
                reason = record_failed(entry, "its process ended without a word")
                progress.failed.append((entry, reason))
        show(progress)
        return progress


class Watch:
    """Reads where jobs stand from their folders."""

    def __init__(self, jobs: Sequence[Planned]) -> None:
        self.since, self.began = time.time(), dict[Planned, float]()
        self.open = list(jobs)
        self.finished: list[Planned] = []
        self.failed: list[tuple[Planned, str]] = []

    def progress(self) -> Progress:
        waiting, running = deque[Planned](), list[Running]()
        for entry in [*self.open]:
            if held(entry.folder):
                since = self.began.setdefault(entry, time.monotonic())
                running.append(Running(entry, since))
                continue
            record = latest(entry)
            if record.get("status") == "finished":
                self.finished.append(entry)
            elif record.get("status") == "failed" and self.written_since(entry):
                self.failed.append((entry, str(record.get("reason"))))
            else:
                waiting.append(entry)
                continue
            self.open.remove(entry)
        return Progress(waiting, running, [], [*self.finished], [*self.failed])

    def written_since(self, entry: Planned) -> bool:
        """Whether a job's record is of this start of the sweep: jobs that failed earlier run again."""
        return (entry.folder / "result.json").stat().st_mtime >= self.since
