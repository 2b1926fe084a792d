"""The engine `ray`: each job is a Ray task, on this machine or on the nodes of a cluster."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

# Ray reads these when it is imported. The second is a pattern of messages to suppress. It matches all,
# because they would mix with our own lines.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")

import ray
from ray.exceptions import (
    NodeDiedError,
    OutOfMemoryError,
    RayError,
    TaskCancelledError,
    WorkerCrashedError,
)

import modgpt
from modgpt.config.compose import Job
from modgpt.errors import UserError
from modgpt.runs.lease import held
from modgpt.runs.record import status_of
from modgpt.runs.session import Interrupted, leave_terminal
from modgpt.sweep.engines.workers import GRACE_SECONDS
from modgpt.sweep.job import DONE, FAILED, HELD, INTERRUPTED, OUT_OF_MEMORY, attempt
from modgpt.sweep.plan import Planned
from modgpt.sweep.progress import Progress, Running, answered, latest, record_ended
from modgpt.training.hardware import available_cores

POLL_SECONDS = 1.0
ANSWER_SECONDS = 30.0
MOST_DEATHS = 2
OBJECT_STORE_BYTES = 100 * 2**20  # holds what tasks hand over: one number each
LATE = 101  # the exit code of a job over its timeout; the others are in `modgpt.sweep.job`


@dataclass(eq=False)
class Task:
    """A job handed to Ray.

    Attributes:
        gpus: GPUs that it gets, or a fraction of one.
        deaths: how often its process has died while the node stayed alive.
        since: when it was first seen running.
    """

    entry: Planned
    gpus: float
    deaths: int = 0
    since: float | None = None


class RayTasks:
    """Runs jobs as Ray tasks, each in a process of its own.

    If a node dies, its jobs continue on another node from their last checkpoints. If the process of a
    job dies, the job is started once more; the second death makes it fail. A job that ran out of memory
    on a fraction of a GPU is run again with a whole GPU. All nodes must see the sweep's folder, the data
    and this repository under the same paths.

    Args:
        most: number of jobs.
        address: of a cluster, `host:port` or `auto`; None to start Ray on this machine alone.
        cpus_per_job: CPUs that each job reserves, and its number of CPU threads.
        gpus_per_job: GPUs that each job reserves; a fraction lets several jobs share one. None for 1 if
            the cluster has GPUs, else 0.
        timeout: seconds that a job may take; None for no limit.

    Raises:
        UserError: a number is out of range, there is no cluster at the address, or no node has room for
            a job.
    """

    def __init__(
        self,
        most: int,
        address: str | None,
        cpus_per_job: int,
        gpus_per_job: float | None,
        timeout: float | None,
    ) -> None:
        if cpus_per_job < 1:
            raise UserError(f"hydra.launcher.cpus_per_job must be at least 1, got {cpus_per_job}")
        if gpus_per_job is not None and (gpus_per_job < 0 or (gpus_per_job > 1 and gpus_per_job % 1)):
            what = "0, a fraction below 1 or a whole number"
            raise UserError(f"hydra.launcher.gpus_per_job must be {what}, got {gpus_per_job:g}")
        if timeout is not None and timeout <= 0:
            raise UserError(f"hydra.launcher.timeout must be positive, got {timeout:g}")
        connect(address)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        has_gpus = any(node.get("GPU") for node in nodes)
        self.gpus = gpus_per_job if gpus_per_job is not None else float(has_gpus)
        slots = sum(room(node, cpus_per_job, self.gpus) for node in nodes)
        if not slots:
            sizes = sorted({f"{n.get('CPU', 0):g} CPUs and {n.get('GPU', 0):g} GPUs" for n in nodes})
            raise UserError(
                f"no node of the Ray cluster has room for a job with hydra.launcher.cpus_per_job="
                f"{cpus_per_job} and gpus_per_job={self.gpus:g}: they have {', '.join(sizes)}"
            )
        # With GPUs the job chooses its precision and threads on its node: this machine may have no GPU.
        self.n_jobs = None if has_gpus else min(slots, most)
        self.threads = None if has_gpus else cpus_per_job
        self.interrupted: int | None = None
        self.stopping: float | None = None
        self.cpus, self.timeout = cpus_per_job, timeout
        # The nodes also find a clone that is not installed.
        package = Path(modgpt.__file__).parents[1]
        paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {"PYTHONPATH": os.pathsep.join(paths)}
        if not self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""  # otherwise a job sees all GPUs of its node
        self.remote: Any = ray.remote(
            num_cpus=cpus_per_job,
            max_calls=1,  # a new process for each job: nothing is left over from the one before
            max_retries=0,  # `outcome` decides: the job itself may have caused the death
            runtime_env={"env_vars": environment},
        )(train_job)
        self.tasks = dict[ray.ObjectRef, Task]()
        self.elsewhere: list[Task] = []  # jobs that another process runs
        self.left: list[Planned] = []  # for the next start of the sweep

    def run(self, jobs: Sequence[Planned], show: Callable[[Progress], None]) -> Progress:
        """Run the jobs; returns their final state.

        Args:
            jobs: in the order in which they start.
            show: called once a second, and at the end.
        """
        progress = Progress(waiting=deque())
        previous = {s: signal.signal(s, self.interrupt) for s in answered()}
        try:
            for entry in jobs:
                entry.folder.parent.mkdir(
                    parents=True, exist_ok=True
                )  # each job checks that its node sees it
                self.submit(Task(entry, self.gpus))
            while self.tasks or (self.elsewhere and not self.interrupted):
                self.look_again(progress)
                self.stop_if_asked()
                self.note_running(progress)
                show(progress)
                self.collect(progress)
            self.note_running(progress)
            show(progress)
            return progress
        finally:
            for ref in self.tasks:
                ray.cancel(ref)
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    def interrupt(self, signum: int, _: Any) -> None:
        """Note a signal: running jobs save a checkpoint and stop, and no job starts."""
        if signum == signal.SIGHUP:
            leave_terminal()
        self.interrupted = signum

    def submit(self, task: Task) -> None:
        """Hand a job to Ray."""
        entry = task.entry
        task.since = None
        ref = self.remote.options(num_gpus=task.gpus, name=entry.folder.name).remote(
            entry.job, entry.folder.absolute(), Path.cwd(), self.cpus, self.timeout
        )
        self.tasks[ref] = task

    def look_again(self, progress: Progress) -> None:
        """Go on with jobs that another process held and does not any more."""
        for task in [task for task in self.elsewhere if not held(task.entry.folder)]:
            self.elsewhere.remove(task)
            if status_of(task.entry.folder) == "finished":
                progress.finished.append(task.entry)
            elif self.interrupted:
                self.left.append(task.entry)
            else:
                self.submit(task)

    def stop_if_asked(self) -> None:
        """After a signal: make running jobs save and stop, and cancel the waiting ones."""
        if self.interrupted and self.stopping is None:
            self.stopping = time.monotonic()
            for ref in self.tasks:
                ray.cancel(ref)  # only once: a second SIGINT would stop the job before it has saved
        elif self.stopping is not None and time.monotonic() - self.stopping > GRACE_SECONDS:
            for ref in self.tasks:
                ray.cancel(ref, force=True)

    def note_running(self, progress: Progress) -> None:
        """Sort the jobs into those that Ray has started and those that wait."""
        progress.running, progress.waiting = [], deque(self.left)
        for task in self.tasks.values():
            if held(task.entry.folder):
                task.since = task.since or time.monotonic()
                progress.running.append(Running(task.entry, task.since))
            else:
                progress.waiting.append(task.entry)
        progress.elsewhere = [task.entry for task in self.elsewhere]

    def collect(self, progress: Progress) -> None:
        """Handle the jobs that have ended; wait at most `POLL_SECONDS` for one."""
        if not self.tasks:
            time.sleep(POLL_SECONDS)
            return
        refs = [*self.tasks]
        ended, _ = ray.wait(refs, num_returns=len(refs), timeout=POLL_SECONDS)
        for ref in ended:
            self.sort(progress, self.tasks.pop(ref), ref)

    def sort(self, progress: Progress, task: Task, ref: ray.ObjectRef) -> None:
        """Record an ended job as finished or failed, or run it again."""
        entry = task.entry
        code, reason = self.outcome(task, ref)
        if code == DONE:
            progress.finished.append(entry)
        elif code == HELD:
            self.elsewhere.append(task)
        elif code == FAILED:
            record_ended(entry, "failed", reason)
            progress.failed.append((entry, reason))
        elif self.interrupted:
            self.left.append(entry)
        else:
            self.submit(task)

    def outcome(self, task: Task, ref: ray.ObjectRef) -> tuple[int, str]:
        """The code of an ended task, INTERRUPTED if it must run again, and the reason if it FAILED."""
        try:
            code = ray.get(ref)
        except (NodeDiedError, TaskCancelledError):
            return INTERRUPTED, ""
        except (WorkerCrashedError, OutOfMemoryError) as error:
            task.deaths += 1
            why = (
                ", the last time because its node ran out of memory"
                if isinstance(error, OutOfMemoryError)
                else ""
            )
            code = FAILED if task.deaths >= MOST_DEATHS else INTERRUPTED
            return code, f"its process died {task.deaths} times{why}"
        except RayError as error:  # it could not be started
            cause = getattr(error, "cause", None) or error
            return FAILED, f"{type(cause).__name__}: {cause}".splitlines()[0]
        if code == LATE:
            return FAILED, f"over its timeout of {self.timeout:g} s"
        if code == OUT_OF_MEMORY and 0 < task.gpus < 1:
            task.gpus = 1.0
            # Not a failure: the sweep may be stopped before the second try.
            record_ended(task.entry, "interrupted", "out of memory on a fraction of a GPU")
            return INTERRUPTED, ""
        record = latest(task.entry)
        reason = record.reason if record and record.failed else "ended before it started"
        return FAILED if code == OUT_OF_MEMORY else code, str(reason)


def connect(address: str | None) -> None:
    """Connect this process to a Ray cluster, unless it is connected already.

    Args:
        address: `host:port` or `auto`; None to start Ray on this machine alone, for as long as this
            process runs.

    Raises:
        UserError: no cluster can be joined at the address.
    """
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init(
            address="local",  # also when RAY_ADDRESS is set
            num_cpus=available_cores(),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )
        return
    check_answers(address)
    ray.init(address=address, **quiet)


def check_answers(address: str) -> None:
    """Check an address in another process: Ray itself would try for minutes and print warnings.

    Raises:
        UserError: it is not an address, or no cluster answers there.
    """
    host, _, port = address.rpartition(":")
    if address != "auto" and (not host or "/" in host or not port.isdigit()):
        raise UserError(f"hydra.launcher.address must be host:port or auto, got {address!r}")
    join = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False)"
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
        subprocess.run(
            [sys.executable, "-c", join, address],
            capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS,
        )  # fmt: skip
        return
    except subprocess.TimeoutExpired:
        reason = f"no answer within {ANSWER_SECONDS:g} s"
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().rpartition("\n")[2]
    except (OSError, OverflowError) as error:
        reason = str(error)
    raise UserError(
        f"cannot join a Ray cluster at hydra.launcher.address={address}: {reason}; start the sweep on "
        "one of its nodes, with RAY_AUTH_MODE=token if it asks for a token"
    )


def room(node: dict[str, float], cpus: int, gpus: float) -> int:
    """The number of jobs that fit on a node at the same time."""
    slots = node.get("CPU", 0) // cpus
    if gpus > 1:
        slots = min(slots, node.get("GPU", 0) // gpus)
    elif gpus:  # a fraction comes from one GPU: the rests of two do not add up
        slots = min(slots, node.get("GPU", 0) * int(1 / gpus + 1e-6))
    return int(slots)


def train_job(job: Job, folder: Path, cwd: Path, threads: int, timeout: float | None) -> int:
    """Train one job: the Ray task. The process does nothing else.

    Args:
        job, folder: as for `attempt`.
        cwd: the sweep's working directory, from which relative paths start.
        threads: CPU threads, unless the job's own config sets them.
        timeout: seconds after which the job saves a checkpoint and stops.

    Returns:
        A code of `modgpt.sweep.job`, or LATE.

    Raises:
        UserError: this node does not see the sweep's folder.
    """

    def stop(signum: int, _: Any) -> NoReturn:
        raise Interrupted(signum, folder)

    def watch() -> None:
        if ended.wait(timeout):
            return
        overdue.set()
        os.kill(os.getpid(), signal.SIGTERM)
        if not ended.wait(GRACE_SECONDS):
            os.kill(os.getpid(), signal.SIGKILL)

    # Ray cancels with SIGINT. SIGTERM comes when a node is shut down. While the job trains, its session
    # handles both.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    ended, overdue = threading.Event(), threading.Event()
    if not folder.parent.is_dir():
        raise UserError(f"{socket.gethostname()} does not see {folder.parent}: all nodes must share it")
    os.chdir(cwd)
    config = job.config.copy()
    config.threads = config.threads or threads
    if timeout is not None:
        threading.Thread(target=watch, daemon=True, name="timeout").start()
    try:
        code = attempt(replace(job, config=config), folder, log=True)
    except Interrupted:
        code = INTERRUPTED
    finally:
        ended.set()
    return LATE if code == INTERRUPTED and overdue.is_set() else code
