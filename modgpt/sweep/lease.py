"""Who works on a job: a lease, kept alive by a heartbeat, so that a dead owner's job is taken over."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


class Lease:
    """The right to work on a job, held by at most one process at a time on any number of machines.

    `lease.json` in the job's folder names the holder; its modification time is the heartbeat. A lease is
    stale when its holder ran on this machine and is gone, or when the heartbeat has stopped.

    Args:
        folder: the job's folder.
        stale_seconds: age of the heartbeat at which a holder elsewhere counts as dead.
    """

    def __init__(self, folder: Path, stale_seconds: float = STALE_SECONDS) -> None:
        self.folder, self.path = folder, folder / "lease.json"
        self.stale_seconds = stale_seconds
        self.token = secrets.token_hex(8)
        self.ended = threading.Event()

    def acquire(self) -> bool:
        """Take the lease; False when somebody alive holds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / ".lock"):
            if held(self.folder, self.stale_seconds):
                return False
            holder = {"host": socket.gethostname(), "pid": os.getpid(), "token": self.token}
            beside = self.folder / f".lease.{self.token}"
            beside.write_text(json.dumps(holder))
            beside.replace(self.path)
        threading.Thread(target=self.beat, daemon=True, name="heartbeat").start()
        return True

    def beat(self) -> None:
        """Show to be alive until released, or until somebody has taken the lease for stale."""
        while not self.ended.wait(HEARTBEAT_SECONDS):
            if self.mine():
                os.utime(self.path)

    def mine(self) -> bool:
        """Whether this process still holds the lease: it may have been suspended for too long."""
        return read(self.path).get("token") == self.token

    def release(self) -> None:
        """Give the lease back."""
        self.ended.set()
        with locked(self.folder / ".lock"):
            if self.mine():
                self.path.unlink()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def held(folder: Path, stale_seconds: float = STALE_SECONDS) -> bool:
    """Whether somebody alive holds the lease of a job."""
    path = folder / "lease.json"
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    holder = read(path)
    if holder.get("host") == socket.gethostname() and not alive(int(holder.get("pid", -1))):
        return False
    return age < stale_seconds


def read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # A killed child that nobody has waited for yet still has a number, and does nothing.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock, which the system gives back when its holder dies."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
