"""Mistakes and wishes that once ended in a traceback, a hang, or without a word."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.children import environment
from tests.fuzz.conftest import Check
from tests.fuzz.grammar import LONG, TINY
from tests.fuzz.world import make_world

# What is typed, and a part of the one line of error.
REFUSED = {
    "seed=4294967296": "seed must lie between 0 and 4294967295",
    "attention=[flash]": "write the name of an option, such as attention=",
    "tokenizer=saved": "tokenizer.path",
    f"run_name={LONG}": "run_name has 300 bytes",
    "model.n_layers=1e9": "model.n_layers must be a whole number",
    "model.n_layers=1000000000": "model.n_layers",
    "model.d_model=10000000": "GB",
    "data.batch_size=1000000000": "GB",
    "threads=2000": "threads must be at most 1024",
    "~schedule.final": "final",
    "data.path=fifo": "fifo is a pipe",
    "data.path=/dev/zero": "/dev/zero is a device",
    "hydra.run.dir=x": "use output_dir=FOLDER",
    "attention._partial_=false": "_partial_",
    "-m seed=glob(*)": "list the values: seed=1,2,3",
    "-m pos=glob(x)": "no jobs",
    "-m sweep=pos,ffn": "one sweep at a time",
    "-m model.n_heads=3,5": "no job of this sweep can run",
    "-m --cfg job": "do not go together",
    "--cfg x": "invalid choice: 'x'",
    "--package ffn": "--package belongs to --cfg",
    "--help fnn": "no group 'fnn'; did you mean ffn?",
    "--shell-completion x": "install=bash",
}
ELSEWHERE = {
    "generate --run runs/s1 --context -1": "--context must be at least 0",
    "generate --run runs/s1 --top-k x": "invalid int value",
    f"generate --run {LONG}": "",
    f"export --run runs/s1 --out {LONG}": "File name too long",
    "export --run nowhere --out x --trust a-b": "cannot trust 'a-b'",
    "import --source folder": "folder",
    "compare nowhere": "nowhere",
    "query nowhere": "nowhere",
    "query runs --where ffn=": "syntax error",
}


@pytest.mark.parametrize("typed", REFUSED)
def test_training_is_refused(typed: str, check: Check, tmp_path: Path) -> None:
    ended = check(["train", *TINY, *typed.split()], tmp_path)
    assert ended.code == 2
    assert REFUSED[typed] in ended.err


@pytest.mark.parametrize("typed", ELSEWHERE)
def test_command_is_refused(typed: str, check: Check, tmp_path: Path) -> None:
    ended = check(typed.split(), tmp_path)
    assert ended.code == 2
    assert ELSEWHERE[typed] in ended.err


@pytest.mark.parametrize(
    "typed",
    [
        "callbacks.sample=null",
        "logger.csv=null",
        "trainer.precision=64-true",
        "trainer.precision=bf16-true",
    ],
)
def test_training_is_done(typed: str, check: Check, tmp_path: Path) -> None:
    ended = check(["train", *TINY, typed], tmp_path)
    assert ended.code == 0, ended.err
    assert list((tmp_path / "work" / "out").iterdir())


@pytest.mark.parametrize(
    "line",
    [
        ["import", "--source", "model", "--out", "imported"],
        ["export", "--run", "runs/s1", "--out", "exported", "--trust", "nowhere"],
        ["compare", "runs", "--figures", "png"],
        ["query", "runs", "--where", "final_val_loss > 0", "--sort", "wall_seconds"],
        ["evaluate", "--run", "runs/s1", "runs/s2", "--lengths", "4", "8"],
    ],
    ids=lambda line: line[0],
)
def test_command_is_done(line: list[str], check: Check, tmp_path: Path) -> None:
    """Otherwise the refusals would prove nothing."""
    assert check(line, tmp_path).code == 0


def test_generation_is_done(check: Check, tmp_path: Path) -> None:
    line = ["generate", "--run", "runs/s1", "--prompt", "to", "--temperature", "1e-40"]
    assert check([*line, "--max-new-tokens", "5"], tmp_path).code == 0


@pytest.mark.parametrize(
    "flags", [["dry_run=true"], ["--resolved"], ["-m", "dry_run=true", "seed=1,2"]], ids=" ".join
)
def test_nothing_is_trained(flags: list[str], check: Check, tmp_path: Path) -> None:
    assert check(["train", *TINY, *flags], tmp_path).code == 0
    assert not (tmp_path / "work" / "out").exists() and not (tmp_path / "work" / "sweeps").exists()


def test_info_is_printed_once(check: Check, tmp_path: Path) -> None:
    ended = check(["train", "--info", "searchpath"], tmp_path)
    assert (ended.out + ended.err).count("pkg://hydra.conf") == 1


def test_help_of_a_group_with_a_config_folder(check: Check, tmp_path: Path) -> None:
    ended = check(["train", "--config-dir", "folder", "--help", "ffn"], tmp_path)
    assert ended.code == 0 and "ffn=moe" in ended.out


def test_shell_completion(check: Check, tmp_path: Path, template: Path) -> None:
    ended = check(["train", "--shell-completion", "install=bash"], tmp_path)
    assert ended.code == 0 and ended.out.rstrip().endswith("modgpt")
    asked = environment() | {"COMP_LINE": "modgpt train ffn="}
    query = [sys.executable, "-m", "modgpt", "-sc", "query=bash"]
    assert "ffn=moe" in subprocess.run(query, env=asked, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize(
    "line",
    [
        ["generate", "--run", "runs/s1", "--max-new-tokens", "1000000000000"],
        ["train", *TINY, "callbacks.last=null"],
    ],
    ids=lambda line: line[0],
)
def test_a_reader_that_has_seen_enough(line: list[str], template: Path, tmp_path: Path) -> None:
    """As `| head`, which closes the pipe."""
    process = subprocess.Popen(
        [sys.executable, "-m", "modgpt", *line],
        cwd=make_world(template, tmp_path / "work"),
        text=True,
        env=environment() | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(timeout=120) in (0, 141)
    assert errors == ""
