"""A job in a process of one of Hydra's launchers; on a cluster, how it gets back into the queue.

Submitit requeues a job on SIGUSR2, which Slurm sends some time before the time limit. It ignores
SIGTERM, by which Slurm preempts. Here both requeue. A training first finishes its step and saves.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from modgpt.config.compose import Job
from modgpt.runs.record import status_of
from modgpt.runs.session import Interrupted, Session
from modgpt.sweep.job import DONE, HELD, attempt
from modgpt.sweep.settings import keep_settings, proposal
from modgpt.training.loop import train


def attempt_queued(job: Job, folder: Path) -> int:
    """`attempt` in a process of submitit's, or in that of the sweep.

    Returns:
        Exit code: 0, or 1 if the job failed.

    Raises:
        Interrupted: the job was stopped, and its sweep too: they are one process.
        SystemExit: the job is back in the queue, or cancelled.
        submitit.core.utils.UncompletedJobError: it has met its time limit as often as it may.
    """
    requeue: Any = signal.getsignal(signal.SIGUSR2)
    of_submitit = callable(requeue)  # which makes a process for each job

    def answer(handler: Any) -> None:
        for signum in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(signum, handler)

    def back_to_queue(*_: Any) -> None:
        answer(signal.SIG_IGN)  # a job that is being requeued gets more of them
        if over():
            sys.exit("cancelled, or requeued already")
        requeue(signal.SIGUSR2, None)

    if of_submitit:
        answer(back_to_queue)
    try:
        code = attempt(job, folder, log=of_submitit)
    except Interrupted:
        if of_submitit:
            back_to_queue()
        raise
    return int(code not in (DONE, HELD))


def follow(job: Job, folder: Path) -> int:
    """Train as a further process of a job on several devices; returns the exit code.

    Those that Lightning starts are told threads and precision (see `modgpt.training.distributed`);
    those that Slurm starts decide them with the first one.
    """
    if status_of(folder) != "finished":
        decided = job.config.trainer.precision != "auto"
        machine = None if decided else keep_settings(folder.parent, proposal(job.config))
        with Session(leader=False) as session:
            session.take(folder)
            train(job, session, machine)
    return 0


def over() -> bool:
    """Whether Slurm no longer counts this job as running.

    So it is after `scancel`, and where preemption has no grace time: then Slurm requeues by itself. In a
    grace time, and before the time limit, the job runs.
    """
    from submitit import JobEnvironment

    here = JobEnvironment()
    if here.cluster != "slurm":
        return False
    # Not SLURM_JOB_ID, which for the last job of an array stands for the whole array.
    command = ["squeue", "--noheader", "--format=%T", "--job", here.job_id]
    try:
        state = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return state.strip() != "RUNNING"
