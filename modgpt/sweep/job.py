"""One job of a sweep, in whatever process: own its folder, begin or go on, report how it ended."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn

# What every job needs is imported here, once, in the server that all jobs are forked from.
import lightning  # noqa: F401
import tensorboard  # noqa: F401
import torch
import torchmetrics  # noqa: F401

import modgpt.training.callbacks.sample
import modgpt.training.loggers  # noqa: F401
from modgpt.config.compose import Job
from modgpt.errors import TrainingError, UserError
from modgpt.runs.lease import LeaseLost
from modgpt.runs.record import status_of
from modgpt.runs.session import Held, Interrupted, Session
from modgpt.sweep.settings import keep_settings, proposal
from modgpt.training.loop import train

# How a job ended, also the exit codes of a worker, for the sweep to read.
DONE, FAILED, INTERRUPTED, HELD, OUT_OF_MEMORY = 0, 1, 3, 4, 5


def attempt(job: Job, folder: Path, *, log: bool) -> int:
    """Train one job in its folder, unless another process does or has.

    Args:
        job: as composed; threads and precision are those its sweep has decided.
        folder: the job's, below the sweep's.
        log: send what this process prints to the folder's `log.txt`, from here to the process's end.

    Returns:
        DONE, FAILED, HELD (by another process) or OUT_OF_MEMORY (of its device).

    Raises:
        Interrupted: a signal stopped the job.
    """
    try:
        with Session() as session:
            session.take(folder)
            if log:
                redirect(folder / "log.txt")
            if status_of(folder) != "finished":  # it may have been finished since it was planned
                train(job, session, keep_settings(folder.parent, proposal(job.config)))
        return DONE
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        raise
    except (Held, LeaseLost) as error:
        print(error, file=sys.stderr)
        return HELD
    except (UserError, TrainingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except torch.OutOfMemoryError:
        traceback.print_exc()
        return OUT_OF_MEMORY
    except Exception:
        traceback.print_exc()
        return FAILED


def work(job: Job, folder: Path, device: int | None = None) -> NoReturn:
    """`attempt` as a whole process.

    Args:
        job, folder: as for `attempt`.
        device: number of the CUDA device to use, of several.
    """
    # These reach all processes of a terminal; the sweep passes them on as SIGTERM, once.
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_device(device)
    try:
        code = attempt(job, folder, log=True)
    except Interrupted:
        code = INTERRUPTED
    except BaseException:
        traceback.print_exc()
        code = FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the interpreter's tidying up: threads of libraries have made it hang or fail at the end.
    os._exit(code)


def visible_device(device: int) -> str:
    """The name of the device with this number among those the user has left visible."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[device] if visible else str(device)


def redirect(path: Path) -> None:
    """Send everything this process prints, also below Python, to a file."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)
