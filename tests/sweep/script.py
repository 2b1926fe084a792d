"""Sweeps through the real script, as a user starts them, with jobs of a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.checkout import ROOT

T = TypeVar("T")


def tiny(corpus: Path, folder: Path) -> list[str]:
    """Overrides for a sweep `s` below `folder`, of a tiny model."""
    return [
        "data=text", f"data.path={corpus}", f"sweep_dir={folder}", "sweep_name=s", "model.d_model=16",
        "model.n_layers=1", "model.n_heads=2", "model.block_size=8", "data.batch_size=4",
        "trainer.max_steps=20", "schedule.warmup_steps=2", "trainer.val_check_interval=10",
        "trainer.accelerator=cpu", "model.dropout=0.1", "callbacks.last.every_n_train_steps=50",
        "callbacks.sample.length=5",
    ]  # fmt: skip


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A sweep in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts/train.py"), "-m", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, output and errors of a sweep, once it has ended."""
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def sweep(*arguments: str, **environment: str) -> tuple[int, str, str]:
    """`finish(start(…))`."""
    return finish(start(*arguments, **environment))


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """The records of the jobs of the sweep `s`, by name."""
    return {p.parent.name: json.loads(p.read_text()) for p in sorted(folder.glob("s/*/result.json"))}


def wait_for(condition: Callable[[], T], seconds: float = 60) -> T:
    """What the condition returns, once that is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came to that")


def in_the_middle(sweep: Path) -> list[str]:
    """The jobs of a sweep that have begun, saved something, and not come to their end."""
    return [
        path.parent.name
        for path in sweep.glob("*/result.json")
        if json.loads(path.read_text())["status"] == "running"
        and (path.parent / "checkpoints" / "last.ckpt").exists()
    ]


def leases(folder: Path) -> Iterator[int]:
    """The process numbers of those that hold a job."""
    for path in folder.glob("s/*/lease.json"):
        try:
            yield int(json.loads(path.read_text())["pid"])
        except (OSError, ValueError):
            continue
