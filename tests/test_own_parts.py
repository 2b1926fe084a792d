"""A part in the user's own package, outside this repository: found, trained, swept, compared, loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkout import ROOT

ATTENTION = '''
"""Attention that sees only its own token and the one before."""

from modgpt.model.attention.local_window import LocalWindowAttention


class PairAttention(LocalWindowAttention):
    def __init__(self, **base):
        super().__init__(window=2, **base)
'''
OPTION = """
# Each token sees itself and the one before it.
defaults:
  - /shared/attention@_here_

_target_: mine.pair.PairAttention
_partial_: true
"""
TINY = (
    "data=text", "data.path=text.txt", "model.d_model=16", "model.n_layers=1", "model.n_heads=2",
    "model.block_size=8", "data.batch_size=4", "trainer.max_steps=4", "trainer.val_check_interval=4",
    "trainer.accelerator=cpu", "threads=1", "callbacks.sample=null",
)  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a package, a config folder and a text."""
    home = tmp_path_factory.mktemp("home")
    files = {
        "mine/__init__.py": "",
        "mine/pair.py": ATTENTION,
        "conf/attention/pair.yaml": OPTION,
        "text.txt": "to be or not " * 200,
    }
    for name, text in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return home


def modgpt(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the user's working directory."""
    path = os.pathsep.join([str(ROOT), str(home)])
    return subprocess.run(
        [sys.executable, "-m", "modgpt", *arguments],
        cwd=home, capture_output=True, text=True, timeout=240,
        env=os.environ | {"PYTHONPATH": path, "COLUMNS": "120", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(home: Path) -> Path:
    done = modgpt(home, "train", "--config-dir", "conf", "attention=pair", "run_name=own", *TINY)
    assert done.returncode == 0, done.stderr
    return home / "outputs" / "runs" / "own"


def test_it_is_in_the_help(home: Path) -> None:
    done = modgpt(home, "train", "--config-dir", "conf", "--help", "attention")
    assert done.returncode == 0, done.stderr
    assert "attention=pair" in done.stdout and "sees itself and the one before it" in done.stdout


def test_it_trains_in_the_working_directory_under_its_own_name(trained: Path) -> None:
    record = json.loads((trained / "result.json").read_text())
    assert record["status"] == "finished" and record["choices"]["attention"] == "pair"


def test_it_is_checked_like_ours(home: Path) -> None:
    done = modgpt(home, "train", "--config-dir", "conf", "attention=pear", *TINY)
    assert done.returncode == 2 and "did you mean pair?" in done.stderr
    done = modgpt(home, "train", "--config-dir", "conf", "attention=pair", "attention.sink=1", *TINY)
    assert done.returncode == 2 and "unknown key 'attention.sink'" in done.stderr
    assert modgpt(home, "train", "attention=pair", *TINY).returncode == 2, "without its folder"


def test_it_is_swept_and_compared(home: Path) -> None:
    sweep = [
        "train",
        "-m",
        "--config-dir",
        "conf",
        "attention=glob(*,exclude=[b*,d*,fo*,g*,h*,k*,l*,m*,s*])",
    ]
    done = modgpt(home, *sweep, "sweep_name=own", *TINY)
    assert done.returncode == 0, done.stderr
    jobs = sorted(path.name.split("-")[0] for path in (home / "outputs/sweeps/own").glob("*-s1-*"))
    assert jobs == ["flash", "pair"]
    done = modgpt(home, "compare", "outputs/sweeps/own")
    assert done.returncode == 0, done.stderr
    assert "pair" in (home / "outputs/sweeps/own/results.csv").read_text()


def test_it_goes_on_with_its_folder_or_when_it_is_trusted(home: Path, trained: Path) -> None:
    more = [f"resume={trained}", "trainer.max_steps=6"]
    refused = modgpt(home, "train", *more)
    assert refused.returncode == 2 and "--trust mine" in refused.stderr
    assert modgpt(home, "train", "--trust", "mine", *more).returncode == 0
    again = modgpt(home, "train", "--config-dir", "conf", more[0], "trainer.max_steps=8")
    assert again.returncode == 0, again.stderr


def test_a_run_does_not_choose_whom_to_trust(home: Path, trained: Path) -> None:
    """Only the user does: the file names the class, and that is refused with the way to say so."""
    code = (
        "import sys, modgpt\n"
        "try: modgpt.load_run(sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
        "print(type(modgpt.load_run(sys.argv[1], trust=['mine']).model.blocks[0].attention).__name__)"
    )
    path = os.pathsep.join([str(ROOT), str(home)])
    done = subprocess.run(
        [sys.executable, "-c", code, str(trained)],
        capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    refusal, loaded = done.stdout.splitlines()
    assert "--trust mine" in refusal and loaded == "PairAttention"
