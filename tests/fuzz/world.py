"""The working directory of a command line: a corpus, a trained run, an exported model, and odd paths."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from modgpt.config.compose import compose_job
from modgpt.huggingface.export import export
from modgpt.runs.folder import load_run
from modgpt.training.loop import train
from tests.fuzz.grammar import TINY

TEXT = "to be or not to be, that is the question: ünïcode\n" * 40


def make_template(folder: Path) -> Path:
    """Fill a folder with what the command lines name; each line gets a copy of it."""
    (folder / "corpus.txt").write_text(TEXT, encoding="utf-8")
    (folder / "other.txt").write_text(TEXT[::-1], encoding="utf-8")
    (folder / "empty.txt").write_text("")
    (folder / "bytes.txt").write_bytes(b"\xff\xfe\x00" * 999)
    (folder / "folder").mkdir()
    before = Path.cwd()
    os.chdir(folder)
    try:
        for seed in (1, 2):
            train(compose_job([*TINY, f"seed={seed}", f"run_name=s{seed}"]))
        Path("out").rename("runs")
        export(load_run(Path("runs/s1")), Path("model"))
    finally:
        os.chdir(before)
    return folder


def make_world(template: Path, folder: Path) -> Path:
    """A fresh copy of the template, with the FIFO that nobody writes to."""
    shutil.copytree(template, folder)
    os.mkfifo(folder / "fifo")
    return folder


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every path below a folder, with size and time of change for a file."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        changed = (status.st_size, status.st_mtime_ns) if path.is_file() else (0, 0)
        found[str(path.relative_to(folder))] = changed
    return found
