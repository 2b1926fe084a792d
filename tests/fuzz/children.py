"""Runs command lines in forked children of a warm process, which has imported everything once.

Started as a program it is that process: it reads one request per line on stdin, and answers each with
the exit code on stdout.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.checkout import ROOT

SECONDS = 60
MEMORY = 3 * 2**30  # bytes that a command may take beyond those of the warm process
TIMED_OUT = -1000


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    code: int
    out: str
    err: str
    seconds: float


class Children:
    """The warm process.

    with Children() as children:
        ended = children.run(["train", "ffn=mo"], folder)
    """

    def __enter__(self) -> Children:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.children"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def run(self, line: list[str], folder: Path) -> Ended:
        """Run `modgpt` with these arguments in a folder."""
        assert self.process.stdin is not None and self.process.stdout is not None
        begun = time.monotonic()
        request = {"line": line, "folder": str(folder), "output": str(folder.parent)}
        print(json.dumps(request), file=self.process.stdin, flush=True)
        code = json.loads(self.process.stdout.readline())
        out, err = (folder.parent / name for name in ("stdout", "stderr"))
        return Ended(code, read(out), read(err), time.monotonic() - begun)


def environment() -> dict[str, str]:
    """One thread, a terminal of a fixed width, nothing fetched."""
    offline = {
        "HF_HUB_OFFLINE": "1",
        "http_proxy": "http://localhost:9",
        "https_proxy": "http://localhost:9",
    }
    return os.environ | offline | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONPATH": str(ROOT)}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def serve() -> None:
    """Answer requests until stdin ends."""
    warm_up()
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    for text in sys.stdin:
        request = json.loads(text)
        child = multiprocessing.get_context("fork").Process(target=command, args=(request,))
        child.start()
        child.join(SECONDS)
        code = child.exitcode
        if code is None:
            code = TIMED_OUT
        end_group(child.pid)
        child.join()
        print(json.dumps(code), file=replies, flush=True)


def end_group(leader: int | None) -> None:
    """Kill a child with the processes that it has started."""
    assert leader is not None
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def command(request: dict[str, str]) -> None:
    """The child: one command line, with its own folder, output and limits."""
    os.setsid()
    folder = Path(request["output"])
    os.chdir(request["folder"])
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has closed it
    sys.argv = ["modgpt", *request["line"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    limit_memory()
    from modgpt.cli import main

    sys.exit(main())


def limit_memory() -> None:
    """Bound what this process and its children may write to, not what they reserve."""
    status = Path("/proc/self/status")
    if status.exists():  # elsewhere memory is not bounded
        taken = next(line for line in status.read_text().splitlines() if line.startswith("VmData:"))
        limit = int(taken.split()[1]) * 1024 + MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.RLIM_INFINITY))


def warm_up() -> None:
    """Import what the commands import; no thread may run yet when the children are forked."""
    import matplotlib.pyplot  # noqa: F401
    import pandas  # noqa: F401
    import transformers  # noqa: F401

    import modgpt.commands.compare
    import modgpt.commands.evaluate
    import modgpt.commands.export
    import modgpt.commands.generate
    import modgpt.commands.import_hf
    import modgpt.commands.query
    import modgpt.commands.train
    import modgpt.compare.comparison
    import modgpt.huggingface.export
    import modgpt.huggingface.importing
    import modgpt.inference.evaluation.report
    import modgpt.runs.session
    import modgpt.sweep.job  # noqa: F401


if __name__ == "__main__":
    serve()
