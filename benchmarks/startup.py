"""The time from the shell to the first training step, and to the message about a typo."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from benchmarks import ROOT
from benchmarks.rounds import Row

STARTED = "MODGPT_BENCHMARK_STARTED"


class FirstStep(Callback):
    """Prints the time since the start of the program after the first step, and ends the program."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        print(f"first step after {time.time() - float(os.environ[STARTED])} s", flush=True)
        os._exit(0)


def startup(rounds: int) -> list[Row]:
    """Seconds from the start of `scripts/train.py`, with the data in place: medians and ranges."""
    measures = {"to the first training step": first_step, "to the message about a typo": typo}
    seconds: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            seconds[name].append(measure())
    return [
        {"from the shell": n, "seconds": statistics.median(s), "lowest": min(s), "highest": max(s)}
        for n, s in seconds.items()
    ]


def first_step() -> float:
    with tempfile.TemporaryDirectory() as folder:
        target = "+callbacks.first._target_=benchmarks.startup.FirstStep"
        out = started(target, f"output_dir={folder}").stdout
    return float(out.rpartition("first step after ")[2].split()[0])


def typo() -> float:
    start = time.perf_counter()
    if started("ffn=mo").returncode != 2:
        raise RuntimeError("the typo did not end with exit code 2")
    return time.perf_counter() - start


def started(*overrides: str) -> subprocess.CompletedProcess[str]:
    """The completed process of a training by the real script."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts/train.py"), *overrides],
        capture_output=True, text=True, timeout=120, env=os.environ | {STARTED: str(time.time())},
    )  # fmt: skip
