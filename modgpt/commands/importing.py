"""Ctrl-C while a command imports its libraries."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ctrl_c_ends() -> Iterator[None]:
    """Let Ctrl-C end the process at once while the block imports libraries.

    A KeyboardInterrupt inside an import would print a long traceback, or a library would swallow it and
    stay half imported. Nothing has been written yet.
    """
    python = signal.default_int_handler
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGINT) is not python:  # it means something else already
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, python)
