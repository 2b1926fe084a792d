"""What only reads a run starts quickly: it imports neither Lightning nor PyTorch's compiler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modgpt.runs.saved import job_of
from modgpt.training.loop import train

READ = """
import sys
from pathlib import Path
from modgpt.commands.generate import main
assert main(["--run", sys.argv[1], "--prompt", "to", "--max-new-tokens", "3", "--seed", "1"]) == 0
slow = [name for name in ("lightning", "torch._dynamo") if name in sys.modules]
assert not slow, f"imported {slow}"
"""


@pytest.mark.parametrize("attention", ["flash", "linear"])
def test_generating_imports_nothing_slow(
    attention: str, overrides: Callable[..., list[str]], tmp_path: Path
) -> None:
    folder = train(job_of(overrides("trainer.max_steps=5", f"attention={attention}"))).folder
    command = [sys.executable, "-c", READ, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert ended.returncode == 0, ended.stderr
