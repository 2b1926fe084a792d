"""`modgpt compare` as people type it: globs, mistakes, and a reader that stops reading."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modgpt.compare.load import load_results
from tests.checkout import ROOT
from tests.compare.synthetic import DEFAULT, losses, write_run, write_sweep

MOE = DEFAULT | {"ffn": "moe"}
COMMAND = [sys.executable, str(ROOT / "scripts" / "compare.py")]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_sweep(tmp_path / "sweep", losses([DEFAULT, MOE], [1, 2]), curves=True)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.parametrize("lines", [0, 1, 3])
def test_a_reader_may_stop_reading(sweep: Path, lines: int) -> None:
    """As `| head` does: the files are written, and the exit code is that of a broken pipe."""
    done = subprocess.run(
        ["bash", "-c", f'"$@" | head -n {lines}; echo "code ${{PIPESTATUS[0]}}"', "-", *COMMAND, sweep],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.endswith("code 141\n") and not done.stderr
    assert (sweep / "report.html").exists()


def test_a_glob_may_name_files_and_folders_without_runs(sweep: Path) -> None:
    """`modgpt compare outputs/*` meets a README and a run that has only just begun."""
    (sweep / "README.md").touch()
    (sweep / "just-begun").mkdir()
    write_run(sweep, DEFAULT, 9, None, status="running", final_step=10)
    done = command(*sorted(sweep.iterdir()), "--out", sweep.parent / "out")
    assert done.returncode == 0 and not done.stderr
    text = " ".join(done.stdout.split())
    assert "README.md: not a folder" in text and "just-begun: no run has started here yet" in text
    assert "1 running job at step 10" in text
    assert len(load_results(sorted(sweep.iterdir())).finished) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/absent"], "{tmp}/absent does not exist: name the folder of a sweep or of a run"),
        (["{tmp}/empty"], "no run (a folder with a result.json) below {tmp}/empty"),
        (["{tmp}/file"], "no run (a folder with a result.json) below {tmp}/file"),
        (["{tmp}/sweep", "{tmp}/absent"], "{tmp}/absent does not exist"),
        (["{tmp}/sweep", "--out", "{tmp}/file"], "cannot write to {tmp}/file: it is a file; name"),
        (["{tmp}/sweep", "--out", "{tmp}/file/below"], "cannot write to {tmp}/file/below"),
        (["{tmp}/sweep", "--out", "{tmp}/" + "x" * 300], "cannot write to {tmp}/xxx"),
        (["{tmp}/sweep", "--best", "optimizer.lrr"], "--best optimizer.lrr: the runs do not differ"),
        (["{tmp}/sweep", "--best", ""], "--best : the runs do not differ in this key"),
        (["{tmp}/sweep", "--baseline", "ffn=mo"], "--baseline ffn=mo: no finished run has it"),
        (["{tmp}/sweep", "--watch", "0"], "argument --watch: must be a number above 0, got 0"),
        (["--watch", "{tmp}/absent"], "{tmp}/absent does not exist"),
        (["--watch"], "the following arguments are required: FOLDER"),
        (["{tmp}/sweep", "--plan", "--out", "x"], "argument --plan: has no use for --out"),
        (["{tmp}/sweep", "--plan", "--baseline", "a=b"], "argument --plan: has no use for --baseline"),
        (["{tmp}/sweep/flash-moe-rmsnorm-rope-s1", "--plan"], "--plan: the seed noise is unknown"),
        (["{tmp}/sweep", "--figures", "gif"], "argument --figures: invalid choice: 'gif'"),
        ([], "the following arguments are required: FOLDER"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line_and_write_nothing(
    sweep: Path, arguments: list[str], message: str
) -> None:
    tmp = sweep.parent
    (tmp / "empty").mkdir()
    (tmp / "file").touch()
    before = sorted(tmp.rglob("*"))
    done = command(*(a.format(tmp=tmp) for a in arguments))
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith(f"error: {message.format(tmp=tmp)}") and done.stderr.count("\n") == 1
    assert sorted(tmp.rglob("*")) == before


def test_ctrl_c_ends_a_watch_and_leaves_the_report(sweep: Path) -> None:
    job = write_run(sweep, DEFAULT, 9, None, status="running", final_step=10)
    (job / "lease.json").touch()
    arguments = [*COMMAND, "--watch", "600", str(sweep)]
    pipe = subprocess.PIPE
    with subprocess.Popen(arguments, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout and process.stderr
        assert "4 finished, 1 running" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130 and not process.stderr.read()
    assert (sweep / "report.html").exists()


@pytest.mark.parametrize("flags_first", [True, False])
def test_another_baseline_is_shown_first(sweep: Path, flags_first: bool) -> None:
    flags = ["--baseline", "ffn=moe"]
    done = command(*flags, sweep) if flags_first else command(sweep, *flags)
    assert done.returncode == 0 and not done.stderr
    assert re.search(r"│ ffn +│ moe +│ +│ baseline", done.stdout)
