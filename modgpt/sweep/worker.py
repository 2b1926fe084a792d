"""One job of a sweep, in a process of its own."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What every job needs is imported here, once, in the server that all jobs are forked from.
import lightning  # noqa: F401
import tensorboard  # noqa: F401
import torch  # noqa: F401
import torchmetrics  # noqa: F401

import modgpt.callbacks.sample
import modgpt.loggers  # noqa: F401
from modgpt.callbacks.resuming import Interrupted
from modgpt.composition import compose_job
from modgpt.record import read_result
from modgpt.sweep.lease import Lease
from modgpt.training import train

# Exit codes of a worker, for the sweep to read.
DONE, FAILED, INTERRUPTED, HELD = 0, 1, 3, 4


def work(overrides: Sequence[str], folder: Path) -> None:
    """Train one job in its folder: claim it, begin or go on, keep its output in `log.txt`."""
    # Ctrl-C reaches all processes of a terminal; the sweep passes it on as SIGTERM, once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lease = Lease(folder)
    if not lease.acquire():
        os._exit(HELD)
    with lease:
        redirect(folder / "log.txt")
        try:
            if status(folder) != "finished":  # by somebody else, since it was planned
                train(compose_job(overrides), folder)
            code = DONE
        except Interrupted as stop:
            print(stop, file=sys.stderr)
            code = INTERRUPTED
        except BaseException:
            traceback.print_exc()
            code = FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the interpreter's tidying up: threads of libraries have made it hang or fail at the end.
    os._exit(code)


def status(folder: Path) -> str | None:
    """The status in a job's record, None where there is none."""
    try:
        record: dict[str, Any] = read_result(folder)
    except ValueError:
        return None
    return record.get("status")


def redirect(path: Path) -> None:
    """Send everything this process prints, also below Python, to a file."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    os.close(handle)
