"""A process at work on a run's folder: it alone writes there, and the record tells how it ended."""

from __future__ import annotations

import errno
import os
import signal
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from modgpt.errors import TrainingError, UserError
from modgpt.runs.checkpoint import has_checkpoint
from modgpt.runs.lease import Lease, LeaseLost, described, read
from modgpt.runs.provenance import now
from modgpt.runs.record import RecordFile, RunRecord, status_of

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What ends a training for which nothing is wrong with it: it can go on.
STOPPED = (KeyboardInterrupt, SystemExit)


class Held(UserError):
    """Another process works on the folder."""


class StorageError(TrainingError):
    """The run could not be written: the disk is full, or read-only, or there are too many open files."""


class Interrupted(BaseException):
    """A signal asked the run to stop.

    Not an `Exception`: what handles the errors of a library must not swallow it.

    Attributes:
        signum: the signal; the exit code is 128 + signum.
        folder: the run's; None where nothing has been written.
    """

    def __init__(self, signum: int, folder: Path | None) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum, self.folder = signum, folder

    def advice(self) -> str:
        """One line: what stopped the run, and how to go on."""
        if self.folder is None or not self.folder.exists():
            return f"{self}; nothing has been written"
        if status_of(self.folder) in ("finished", "partial"):
            return f"{self}; the run in {self.folder} is finished"
        if has_checkpoint(self.folder):
            return f"{self}; go on with: modgpt train resume={self.folder}"
        return f"{self} before its first checkpoint: start it again ({self.folder} can be removed)"


class Session:
    """Owns a run's folder while this process works on it, and answers signals meanwhile.

    In a training, `StopOnSignal` answers them at the end of a step; before and after, they raise
    `Interrupted` at once. A signal that is ignored from outside (nohup, a background job) stays ignored.

        with Session() as session:
            session.take(folder)
            with session.recording(first_record, ending) as record:
                ...  # train
                record.update(status="finished")

    Args:
        leader: this process writes the run's files. Of the processes of several devices only one does.
    """

    def __init__(self, leader: bool = True) -> None:
        self.leader = leader
        self.folder: Path | None = None
        self.lease: Lease | None = None
        self.new = False  # this session has made the folder
        self.received: int | None = None
        self.waiting = False  # a signal waits until something has been written
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Session:
        self.excepthook, threading.excepthook = threading.excepthook, without_storage_errors
        signals = [*SIGNALS]
        if callable(signal.getsignal(signal.SIGUSR2)):  # submitit's: Slurm is about to end the job
            signals.append(signal.SIGUSR2)
        for signum in signals:
            handler = signal.getsignal(signum)
            if handler is not signal.SIG_IGN and threading.current_thread() is threading.main_thread():
                self.previous[signum] = handler
                signal.signal(signum, self.answer)
        return self

    def __exit__(self, *_: object) -> None:
        self.waiting = True
        if self.lease is not None:
            self.lease.release()
        if self.folder is not None and self.new and not (self.folder / "result.json").exists():
            remove_empty(self.folder)
        threading.excepthook = self.excepthook
        for signum, handler in self.previous.items():
            signal.signal(signum, handler)
        self.previous.clear()

    def answer(self, signum: int, frame: FrameType | None) -> None:
        """Raise `Interrupted`: for the first signal, and for Ctrl-C each time."""
        if signum == signal.SIGHUP:
            leave_terminal()
        again = self.received is not None and signum != signal.SIGINT
        self.received = signum
        if not self.waiting and not again:
            raise Interrupted(signum, self.folder)

    @contextmanager
    def signals_wait(self) -> Iterator[None]:
        """Let signals wait until the block has ended."""
        before = self.received
        self.waiting = True
        try:
            yield
        finally:
            self.waiting = False
        if self.received is not None and self.received != before:
            raise Interrupted(self.received, self.folder)

    def claim(self, make: Callable[[], Path]) -> Path:
        """Own a new folder; it is removed at the end if nothing has been recorded in it.

        Args:
            make: makes the folder and returns it.
        """
        with self.signals_wait():
            self.folder, self.new = make(), True
        return self.take(self.folder)

    def take(self, folder: Path) -> Path:
        """Own a folder that is there, or that a sweep has planned.

        Raises:
            Held: another process works on it.
            UserError: it cannot be written to.
        """
        self.folder = folder
        if self.leader:
            lease = Lease(folder)
            try:
                if not lease.acquire():
                    holder = described(read(lease.path))
                    raise Held(f"{folder} is in use by {holder}: wait for it, or stop it")
            except OSError as error:
                raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
            self.lease = lease
        return folder

    def check(self) -> None:
        """Make sure that this process still owns the folder; called before anything is written to it.

        Raises:
            LeaseLost: it does not.
        """
        if self.lease is not None:
            self.lease.check()

    @contextmanager
    def recording(self, first: RunRecord, ending: Callable[[], dict[str, Any]]) -> Iterator[RecordFile]:
        """Keep the run's record; if the training stops or fails, its status says so.

        Args:
            first: what is known before the first step.
            ending: what is known whenever the training ends.

        Raises:
            UserError: the first record cannot be written; nothing has been.
            StorageError: something could not be written later.
        """
        assert self.folder is not None
        try:
            record = RecordFile(self.folder, first, write=self.leader, check=self.check)
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror or error}") from error
        # To be closed for the last record, should there be too many open files by then.
        spare: int | None = os.open(os.devnull, os.O_RDONLY)
        try:
            yield record
        except LeaseLost:
            raise  # the record is somebody else's
        except BaseException as error:
            self.waiting = True
            os.close(spare)
            spare = None
            stopped = isinstance(error, (Interrupted, BrokenPipeError, *STOPPED))
            known: dict[str, Any] = {}
            with suppress(Exception):  # what broke the training may break this, too
                known = ending()
            with suppress(OSError, LeaseLost):  # the first error is the one to tell
                record.update(
                    status="interrupted" if stopped else getattr(error, "status", "failed"),
                    reason=f"{type(error).__name__}: {error}",
                    finished_at=now(),
                    **known,
                )
            self.waiting = False
            if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                raise StorageError(self.storage_advice(error)) from error
            raise
        finally:
            if spare is not None:
                os.close(spare)

    def storage_advice(self, error: OSError) -> str:
        """One line: what could not be written, and what is left."""
        what = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        if self.folder is not None and has_checkpoint(self.folder):
            return f"{what}; the last checkpoint is whole, go on with: modgpt train resume={self.folder}"
        return f"{what}; the run has no checkpoint yet, start it again ({self.folder} can be removed)"


def remove_empty(folder: Path) -> None:
    """Remove the folder of a run that never began."""
    with suppress(OSError):
        (folder / ".lock").unlink(missing_ok=True)
        folder.rmdir()


def leave_terminal() -> None:
    """Send what is printed to nowhere if the terminal is gone: else each print would raise an error."""
    for stream in (1, 2):
        try:
            termios.tcgetattr(stream)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream)
                os.close(nowhere)


def without_storage_errors(arguments: threading.ExceptHookArgs) -> None:
    """Report what a thread raised, but not an OSError: TensorBoard's writer raises it again for us."""
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)
    elif arguments.thread is None or "Writer" not in type(arguments.thread).__name__:
        print(f"{arguments.exc_type.__name__}: {arguments.exc_value}", file=sys.stderr)
