"""Who works on a folder: a lease, kept alive by a heartbeat; a dead owner's work is taken over."""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
from filelock import FileLock

from modgpt.errors import TrainingError

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
POLL_SECONDS = 0.2

log = logging.getLogger(__name__)
# For each lease: what its heartbeat looked like, and when this process first saw it so.
seen: dict[Path, tuple[tuple[int, int], float]] = {}
# Tokens of leases that this process has given back, perhaps without being able to remove them.
given_back: set[str] = set()


class LeaseLost(TrainingError):
    """Another process has taken over the folder: this one must not write to it any more."""


class Lease:
    """The right to write to a folder, held by at most one process at a time on any number of machines.

    `lease.json` in the folder names the holder. Its modification time is the heartbeat.

    Args:
        folder: of the run, the job or the search.
        stale_seconds: how long the heartbeat must stand still, while watched, until its holder counts as
            dead.
    """

    def __init__(self, folder: Path, stale_seconds: float = STALE_SECONDS) -> None:
        self.folder, self.path = folder, folder / "lease.json"
        self.stale_seconds = stale_seconds
        self.token = secrets.token_hex(8)
        self.ended = threading.Event()

    def acquire(self) -> bool:
        """Take the lease; False when somebody alive holds it.

        A running process on this machine is known to be alive. A holder on another machine, or a
        suspended one, is watched until its heartbeat moves, `stale_seconds` at most.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        first: tuple[int, int] | None = None
        while True:
            with locked(self.folder / ".lock"):
                if not _alive(self.path, self.stale_seconds):
                    self._write()
                    break
                now = heartbeat(self.path)
            if first is None:
                first = now
                if runs_here(read(self.path)):
                    return False
            elif now != first:
                return False
            elif time.monotonic() - started > 2 * HEARTBEAT_SECONDS:
                holder = described(read(self.path))
                log.info(f"waiting for {self.folder}: {holder} held it and shows no sign of life")
                started = float("inf")  # said once
            time.sleep(POLL_SECONDS)
        threading.Thread(target=self.beat, daemon=True, name="heartbeat").start()
        return True

    def _write(self) -> None:
        holder = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "machine": machine(),
            "created": created(psutil.Process()),
            "token": self.token,
        }
        beside = self.folder / f".lease.{self.token}"
        try:
            beside.write_text(json.dumps(holder))
            beside.replace(self.path)
        finally:
            beside.unlink(missing_ok=True)

    def beat(self) -> None:
        """Show to be alive until the lease is released, or lost."""
        while not self.ended.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):  # perhaps the next beat succeeds
                if self.mine():
                    os.utime(self.path)

    def mine(self) -> bool:
        """Whether this process still holds the lease: it may have been suspended for too long."""
        return read(self.path).get("token") == self.token

    def check(self) -> None:
        """Make sure that this process may still write.

        Raises:
            LeaseLost: another process has taken over, or the lease has been removed.
        """
        if not self.mine():
            holder = read(self.path)
            taken = f"taken over by {described(holder)}" if holder else "released (no lease.json)"
            raise LeaseLost(
                f"stopped: {self.folder} was {taken} while this process was suspended or cut off; "
                "this process writes nothing more"
            )

    def release(self) -> None:
        """Give the lease back."""
        self.ended.set()
        given_back.add(self.token)
        with suppress(OSError), locked(self.folder / ".lock"):
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
    """Whether somebody alive holds the lease of a folder; the lease of a dead holder is removed.

    A holder is dead when its process on this machine is gone, or when its heartbeat has stood still for
    `stale_seconds` while this process watched. No clock of another machine is compared with ours: so
    the first look at a holder elsewhere always finds it alive.
    """
    path = folder / "lease.json"
    if _alive(path, stale_seconds):
        return True
    if path.exists():
        with suppress(OSError), locked(folder / ".lock"):
            if not _alive(path, stale_seconds):  # still: somebody may have taken it meanwhile
                path.unlink(missing_ok=True)
    return False


def _alive(path: Path, stale_seconds: float) -> bool:
    """Whether the holder that a lease names counts as alive."""
    now = heartbeat(path)
    if now is None:
        seen.pop(path, None)
        return False
    holder = read(path)
    here = holder.get("machine") == machine()
    if here and (holder.get("token") in [*given_back] or not process_lives(holder)):
        return False
    before, since = seen.get(path, (None, 0.0))
    if now != before:
        seen[path] = now, time.monotonic()
        return True
    return time.monotonic() - since < stale_seconds


def heartbeat(path: Path) -> tuple[int, int] | None:
    """What changes with every heartbeat and every new holder; None where there is no lease."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_mtime_ns, stat.st_ino


def read(path: Path) -> dict[str, Any]:
    """The holder that a lease names; empty where there is none, or a damaged one.

    Raises:
        OSError: the file is there and cannot be read just now.
    """
    try:
        holder = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def described(holder: dict[str, Any]) -> str:
    return f"process {holder.get('pid', '?')} on {holder.get('host', 'an unknown machine')}"


def machine() -> str:
    """What identifies this machine since its last start, and this container on it.

    Not the host's name: clones and containers may share one, and then a process number means nothing.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{socket.gethostname()} {uuid.getnode()}"


def created(process: psutil.Process) -> float:
    """Seconds from the machine's start to the process's, which no change of the clock alters."""
    return process.create_time() - psutil.boot_time()


def process_lives(holder: dict[str, Any]) -> bool:
    """Whether the holder, of this machine, still runs: the same process, not one with its number."""
    try:
        process = psutil.Process(int(holder["pid"]))
        # A killed child that nobody has waited for yet still has a number, and does nothing.
        same = abs(created(process) - float(holder["created"])) < 1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError, OverflowError):
        return False
    except psutil.AccessDenied:
        return True


def runs_here(holder: dict[str, Any]) -> bool:
    """Whether the holder is a process of this machine that runs and is not suspended."""
    if holder.get("machine") != machine() or not process_lives(holder):
        return False
    with suppress(psutil.Error):
        return psutil.Process(int(holder["pid"])).status() != psutil.STATUS_STOPPED
    return False


def locked(path: Path) -> FileLock:
    """A lock on a file, for `with`; the system gives it back when its holder dies."""
    return FileLock(path)
