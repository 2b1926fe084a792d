"""Counts how many faults a run survives: signals at random moments, and flipped bits in a checkpoint.

    python -m benchmarks.faults --tries 20

Prints the table of docs/reliability.md: fault, tries, survived. A run survives a signal if its exit code
is that of the signal, its record has the right status, the advice that it printed works, and the resumed
run ends with the loss of an undisturbed run. The moments are uniform between the start and the end of
the process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from modgpt.errors import UserError
from modgpt.runs.checkpoint import read_checkpoint, write_checkpoint

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description="count how many faults a run survives")
    parser.add_argument("--tries", type=int, default=20, help="signals of each kind (default: 20)")
    parser.add_argument("--flips", type=int, default=2000, help="flipped bits (default: 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and bits")
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    print("| fault | tries | survived |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        runs = Runs(Path(name))
        for signum in SIGNALS:
            results = [runs.disturbed(signum, moments) for _ in range(arguments.tries)]
            print(f"| {signum.name} | {len(results)} | {sum(results)} |", flush=True)
        noticed = flipped_bits(Path(name) / "a.ckpt", arguments.flips, moments)
        print(f"| flipped bit in a checkpoint | {arguments.flips} | {noticed} |")


class Runs:
    """Short trainings, each in its own process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        words = random.Random(0).choices(["to", "be", "or", "not", "that", "is"], k=2000)
        (folder / "words.txt").write_text(" ".join(words))
        started = time.perf_counter()
        process, undisturbed = self.start()
        assert process.wait() == 0, "the undisturbed run failed"
        self.seconds = time.perf_counter() - started
        self.loss = self.record(undisturbed)["final_val_loss"]

    def start(self, *more: str) -> tuple[subprocess.Popen[str], Path]:
        """Start a training; returns its process and the folder of its run."""
        self.number += 1
        overrides = more or (
            "data=text", f"data.path={self.folder / 'words.txt'}", f"output_dir={self.folder}",
            f"run_name=r{self.number}", "model.d_model=32", "model.n_layers=1", "model.n_heads=2",
            "model.block_size=16", "model.dropout=0.1", "data.batch_size=4", "trainer.max_steps=200",
            "trainer.val_check_interval=40", "callbacks.last.every_n_train_steps=20", "threads=1",
            "trainer.accelerator=cpu", "trainer.precision=32-true",
        )  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, "-m", "modgpt", "train", *overrides],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ,
        )  # fmt: skip
        return process, self.folder / f"r{self.number}"

    def record(self, folder: Path) -> dict[str, Any]:
        return json.loads((folder / "result.json").read_text())

    def disturbed(self, signum: signal.Signals, moments: random.Random) -> bool:
        """Whether a run survives a signal at a random moment; prints to stderr why not."""
        process, folder = self.start()
        time.sleep(moments.uniform(0, self.seconds))
        process.send_signal(signum)
        _, errors = process.communicate()
        reason = self.failure(signum, process.returncode, folder, errors)
        if reason:
            print(f"{signum.name}: {reason}\n{errors}", file=sys.stderr)
        return not reason

    def failure(self, signum: signal.Signals, code: int, folder: Path, errors: str) -> str | None:
        """Why a run did not survive; None if it did."""
        if not folder.exists():
            return None if code in (-signum, 128 + signum) else f"exit code {code} before the run"
        status = self.record(folder)["status"]
        if code == 0 or status == "finished":  # the signal came too late
            return None if status == "finished" else f"exit code 0, and status {status}"
        if code not in (-signum, 128 + signum):
            return f"exit code {code}"
        if status != ("running" if signum == signal.SIGKILL else "interrupted"):
            return f"status {status}"
        saved = (folder / "checkpoints" / "last.ckpt").exists()
        if signum != signal.SIGKILL and saved != (f"resume={folder}" in errors):
            return "wrong advice"
        if not saved:
            return None
        process, _ = self.start(f"resume={folder}")
        if process.wait() != 0:
            return "the resumed run failed"
        return None if self.record(folder)["final_val_loss"] == self.loss else "another loss"


def flipped_bits(path: Path, flips: int, moments: random.Random) -> int:
    """The number of flipped bits that the reader of checkpoints notices."""
    content = {"modgpt": {"config": {}, "tokenizer": {}}, "global_step": 1}
    write_checkpoint(content | {"state_dict": {"model.weight": torch.randn(100, 100)}}, path)
    whole, noticed = path.read_bytes(), 0
    for _ in range(flips):
        damaged = bytearray(whole)
        damaged[moments.randrange(len(whole))] ^= 1 << moments.randrange(8)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except UserError:
            noticed += 1
    return noticed


if __name__ == "__main__":
    main()
