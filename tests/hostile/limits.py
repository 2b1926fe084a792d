"""Bounds and watch for a command that reads a hostile file inside the process of the tests."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MEMORY = 4 * 2**30  # bytes of address space that a command may take beyond what there is
SECONDS = 30

# Events of the interpreter that mean: something ran, or went out.
FORBIDDEN = (
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn"),
    *("socket.connect", "socket.getaddrinfo", "socket.bind"),
)


class TooLong(BaseException):
    """The command took too long; no command catches it, as it would an error of the system."""


_watched: list[tuple[str, Any]] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and event in FORBIDDEN:
        _watched.append((event, arguments))


sys.addaudithook(_hook)  # for good: a hook cannot be taken away, so it looks whether it is asked


@contextmanager
def watched() -> Iterator[list[tuple[str, Any]]]:
    """Collect the forbidden events of the block."""
    global _watched
    _watched = []
    try:
        yield _watched
    finally:
        _watched = None


@contextmanager
def bounded(memory: bool = True) -> Iterator[None]:
    """Bound the memory and the time of the block: what exceeds them raises.

    Args:
        memory: False for the time alone. The engine that draws the figures of `compare` reserves more
            address space than it uses, and aborts the process where it cannot.
    """

    def too_long(signum: int, frame: Any) -> None:
        raise TooLong(f"the command took longer than {SECONDS} seconds")

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    status = Path("/proc/self/statm")
    if memory and status.exists():  # elsewhere memory is not bounded
        taken = int(status.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (taken + MEMORY, hard))
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
