"""The engine `ray`: every job a Ray task, on this machine or on the nodes of a cluster."""

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

# Ray reads these when it is imported. The second is the messages that it is to leave out: all of them,
# for they would come between our own lines.
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
LATE = 101  # how a task may also end, beside the codes of `modgpt.sweep.job`


@dataclass(eq=False)
class Task:
    """A job handed to Ray.

    Attributes:
        gpus: the share of a GPU it is given.
        deaths: how often its process has died, on a node that went on.
        since: when it was first seen running.
    """

    entry: Planned
    gpus: float
    deaths: int = 0
    since: float | None = None


class RayTasks:
    """Hands all jobs to Ray, which runs them where there is room, each in a process of its own.

    A job whose node dies goes on elsewhere from its last checkpoint. A job whose own process dies may do
    so once more, then it has failed. A job that ran out of memory on a part of a GPU is run again with a
    whole one. All nodes must see the sweep's folder, the data and this repository under the same paths.

    Args:
        most: jobs there are.
        address: of a cluster, `host:port` or `auto`; None to start Ray on this machine alone.
        cpus_per_job: CPUs that each job takes of its node, and its CPU threads.
        gpus_per_job: GPUs likewise, or a part of one, for several jobs on each; None for 1 where the
            cluster has any.
        timeout: seconds a job may take; None for any number.

    Raises:
        UserError: a number that cannot be, no cluster at the address, or no node with room for a job.
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
            what = "0, a part of 1 or a whole number"
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
        # Where there are GPUs, the precision is for a machine with one to decide, not for this one.
        self.n_jobs = None if has_gpus else min(slots, most)
        self.threads = None if has_gpus else cpus_per_job
        self.interrupted: int | None = None
        self.stopping: float | None = None
        self.cpus, self.timeout = cpus_per_job, timeout
        # A clone that is not installed is found there too.
        package = Path(modgpt.__file__).parents[1]
        paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {"PYTHONPATH": os.pathsep.join(paths)}
        if not self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ""  # else a job sees all that its node has
        self.remote: Any = ray.remote(
            num_cpus=cpus_per_job,
            max_calls=1,  # then the process ends, and with it whatever the job has left behind
            max_retries=0,  # ours to decide: a job may be to blame for its death
            runtime_env={"env_vars": environment},
        )(train_job)
        self.tasks = dict[ray.ObjectRef, Task]()
        self.elsewhere: list[Task] = []  # another process holds the job
        self.left: list[Planned] = []  # for the next start of the sweep

    def run(self, jobs: Sequence[Planned], show: Callable[[Progress], None]) -> Progress:
        """Run the jobs; returns where they ended.

        Args:
            jobs: in the order to begin them.
            show: called once a second, and at the end.
        """
        progress = Progress(waiting=deque())
        previous = {s: signal.signal(s, self.interrupt) for s in answered()}
        try:
            for entry in jobs:
                entry.folder.parent.mkdir(parents=True, exist_ok=True)  # for nodes to see or not to see
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
        """Ask for an end: running jobs save and stop, none is begun."""
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
        """Make running jobs save and stop, and Ray forget the others."""
        if self.interrupted and self.stopping is None:
            self.stopping = time.monotonic()
            for ref in self.tasks:
                ray.cancel(ref)  # once: a second time would mean without saving
        elif self.stopping is not None and time.monotonic() - self.stopping > GRACE_SECONDS:
            for ref in self.tasks:
                ray.cancel(ref, force=True)

    def note_running(self, progress: Progress) -> None:
        """Tell the jobs that Ray has begun from those that wait."""
        progress.running, progress.waiting = [], deque(self.left)
        for task in self.tasks.values():
            if held(task.entry.folder):
                task.since = task.since or time.monotonic()
                progress.running.append(Running(task.entry, task.since))
            else:
                progress.waiting.append(task.entry)
        progress.elsewhere = [task.entry for task in self.elsewhere]

    def collect(self, progress: Progress) -> None:
        """Wait a moment for jobs to end."""
        if not self.tasks:
            time.sleep(POLL_SECONDS)
            return
        refs = [*self.tasks]
        ended, _ = ray.wait(refs, num_returns=len(refs), timeout=POLL_SECONDS)
        for ref in ended:
            self.sort(progress, self.tasks.pop(ref), ref)

    def sort(self, progress: Progress, task: Task, ref: ray.ObjectRef) -> None:
        """Put an ended job where it belongs by how it ended."""
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
        """How a task ended, INTERRUPTED if it is to begin again; the reason if it FAILED."""
        try:
            code = ray.get(ref)
        except (NodeDiedError, TaskCancelledError):
            return INTERRUPTED, ""
        except (WorkerCrashedError, OutOfMemoryError) as error:
            task.deaths += 1
            why = ", last for lack of memory on its node" if isinstance(error, OutOfMemoryError) else ""
            code = FAILED if task.deaths >= MOST_DEATHS else INTERRUPTED
            return code, f"its process died {task.deaths} times{why}"
        except RayError as error:  # it could not be begun
            cause = getattr(error, "cause", None) or error
            return FAILED, f"{type(cause).__name__}: {cause}".splitlines()[0]
        if code == LATE:
            return FAILED, f"over its timeout of {self.timeout:g} s"
        if code == OUT_OF_MEMORY and 0 < task.gpus < 1:
            task.gpus = 1.0
            # Not a failure, should the sweep be stopped before the job has had its second try.
            record_ended(task.entry, "interrupted", "out of memory on a part of a GPU")
            return INTERRUPTED, ""
        record = latest(task.entry)
        reason = record.reason if record and record.failed else "ended before it had begun"
        return FAILED if code == OUT_OF_MEMORY else code, str(reason)


def connect(address: str | None) -> None:
    """Become a program of a Ray cluster, unless this process is one already.

    Args:
        address: `host:port` or `auto`; None for a cluster of this machine alone, which ends with us.

    Raises:
        UserError: there is no cluster that could be joined.
    """
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        ray.init(
            address="local",  # whatever RAY_ADDRESS says
            num_cpus=available_cores(),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            **quiet,
        )
        return
    check_answers(address)
    ray.init(address=address, **quiet)


def check_answers(address: str) -> None:
    """Try the address in another process first: Ray would try for many minutes, and complain meanwhile.

    Raises:
        UserError: it is none, or no cluster lets us in.
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
    """How many jobs fit on a node at once."""
    slots = node.get("CPU", 0) // cpus
    if gpus > 1:
        slots = min(slots, node.get("GPU", 0) // gpus)
    elif gpus:  # a part of a GPU is a part of one, not the rest of two
        slots = min(slots, node.get("GPU", 0) * int(1 / gpus + 1e-6))
    return int(slots)


def train_job(job: Job, folder: Path, cwd: Path, threads: int, timeout: float | None) -> int:
    """One job, as the only thing this process does: a Ray task.

    Args:
        job, folder: as for `attempt`.
        cwd: the sweep's, which relative paths start from.
        threads: the job's, where neither it nor its sweep has decided.
        timeout: seconds until it is made to save and stop.

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

    # Ray cancels with SIGINT; SIGTERM comes when a node is shut down. While the job runs, its session
    # answers both.
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
