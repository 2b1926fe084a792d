"""Command lines from the grammar: 400 in children of a warm process, and 12 as real processes.

The lines are the same at each run. `MODGPT_FUZZ_SEED=2 pytest -n 0 -m slow tests/fuzz` draws others, and
`MODGPT_FUZZ_LINES=1000` more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.children import SECONDS, TIMED_OUT, Ended, environment
from tests.fuzz.conftest import Check
from tests.fuzz.grammar import lines
from tests.fuzz.verdict import complaint, report
from tests.fuzz.world import make_world, snapshot

SEED = int(os.environ.get("MODGPT_FUZZ_SEED", "1"))
LINES = int(os.environ.get("MODGPT_FUZZ_LINES", "400"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
repeatable = {
    "database": None,
    "derandomize": True,
    "deadline": None,
    "phases": [Phase.generate, Phase.shrink],
    "suppress_health_check": list(HealthCheck),
}


def test_in_children_of_a_warm_process(check: Check) -> None:
    print(f"MODGPT_FUZZ_SEED={SEED}")

    @seed(SEED)
    @settings(max_examples=LINES, **repeatable)
    @given(lines)
    def hold(line: list[str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            check(line, Path(folder))

    hold()


def test_as_real_processes(template: Path) -> None:
    print(f"MODGPT_FUZZ_SEED={SEED}")

    @seed(SEED + 1_000_000)
    @settings(max_examples=12, **repeatable)
    @given(lines)
    def hold(line: list[str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            world = make_world(template, Path(folder) / "work")
            before = snapshot(world)
            ended = real(line, world)
            why = complaint(line, ended, before, snapshot(world))
            assert why is None, report(line, ended, why or "")

    hold()


def real(line: list[str], folder: Path) -> Ended:
    """Run `modgpt` with these arguments as a process of its own."""
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "modgpt", *line],
            cwd=folder,
            env=environment(),
            timeout=2 * SECONDS,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return Ended(TIMED_OUT, "", "", time.monotonic() - begun)
    return Ended(done.returncode, done.stdout, done.stderr, time.monotonic() - begun)
