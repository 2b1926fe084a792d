"""Generated text on a terminal, the settings of the interactive mode, and how commands end."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import unicodedata
from pathlib import Path

import pexpect
import pytest
import torch
from rich.console import Console

from modgpt.commands.ending import exit_code
from modgpt.config.compose import compose_job
from modgpt.errors import UserError
from modgpt.inference.chat import SETTINGS, changed, help_page, settings_line
from modgpt.inference.sampling import Sampling
from modgpt.inference.terminal import for_terminal, show
from modgpt.training.loop import train
from tests.checkout import ROOT

HOSTILE = "to\x1b[2J\x1b]0;title\x07\x9b31m\r\b\x7f\u202eab\u2066\ud800\tbe\n"


def test_no_control_character_reaches_the_terminal() -> None:
    every = "".join(map(chr, range(0x11000)))
    shown = for_terminal(every)
    kept = {c for c in shown if unicodedata.category(c) in ("Cc", "Cs")}
    assert kept == {"\n", "\t"}
    assert for_terminal(HOSTILE) == (
        "to\\x1b[2J\\x1b]0;title\\x07\\x9b31m\\r\\x08\\x7f\\u202eab\\u2066\\ud800\tbe\n"
    )
    assert for_terminal("汉 €", "latin-1") == "\\u6c49 \\u20ac" and for_terminal("汉 €") == "汉 €"


@pytest.mark.parametrize("terminal", [True, False])
def test_prompt_and_text_are_shown_without_commands(terminal: bool) -> None:
    out = io.StringIO()
    show(Console(file=out, force_terminal=terminal, color_system=None), HOSTILE, iter(HOSTILE))
    assert "\x1b]0" not in out.getvalue() and "\x1b[2J" not in out.getvalue()
    assert out.getvalue().count("\\x1b[2J") == 2


# --- settings of the interactive mode -------------------------------------------------------------


def test_settings_are_changed_one_by_one() -> None:
    sampling = Sampling()
    for line in ("/temperature 0.5", "/length 20", "/top-k 7", "/TOP-P  0.9 ", "/seed 3"):
        sampling = changed(sampling, line)
    assert sampling == Sampling(20, 0.5, 7, 0.9, 3)
    assert settings_line(sampling) == "temperature 0.5  length 20  top-k 7  top-p 0.9  seed 3"
    for line in ("/top-k off", "/top-p off", "/seed off"):
        sampling = changed(sampling, line)
    assert sampling == Sampling(20, 0.5)
    assert all(f"/{name} {setting.example}" in help_page(sampling) for name, setting in SETTINGS.items())
    assert "now: temperature 0.5  length 20  top-k off" in help_page(sampling)
    for name, setting in SETTINGS.items():
        assert changed(sampling, f"/{name} {setting.example}")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("/temprature 0.7", "unknown command /temprature; did you mean temperature?: there"),
        ("/temperature", "/temperature needs a number, got '': /temperature 0.7"),
        ("/temperature hot", "/temperature needs a number, got 'hot'"),
        ("/temperature nan", "temperature must be 0"),
        ("/temperature off", "/temperature needs a number, got 'off'"),
        ("/length 0.5", "/length needs a whole number, got '0.5': /length 200"),
        ("/top-k 0", "top_k must be at least 1, got 0"),
        ("/top-k x", "/top-k needs a whole number or off, got 'x'"),
        ("/seed -1", "seed must lie between 0"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(line: str, text: str) -> None:
    with pytest.raises(UserError) as caught:
        changed(Sampling(), line)
    assert text in str(caught.value)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps whose vocabulary has escape characters."""
    folder = tmp_path_factory.mktemp("outputs")
    text = "to be or not \x1b[31m\x07\n" * 300
    (folder / "text.txt").write_text(text)
    sizes = ["model.d_model=32", "model.n_layers=1", "model.n_heads=2", "model.block_size=16"]
    job = compose_job([
        "data=text", f"data.path={folder / 'text.txt'}", f"output_dir={folder}", "run_name=run", *sizes,
        "trainer.max_steps=2", "schedule.warmup_steps=1", "trainer.accelerator=cpu", "threads=1",
        "callbacks=none", "logger=none",
    ])  # fmt: skip
    return train(job).folder


def command(run: Path, *arguments: str) -> list[str]:
    return [str(ROOT / "scripts/generate.py"), "--run", str(run), "--device", "cpu", *arguments]


def test_a_pipe_gets_no_escape_characters(run: Path) -> None:
    done = subprocess.run(
        [sys.executable, *command(run, "--prompt", "to \x1b[31m", "--seed", "1", "--temperature", "9")],
        capture_output=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"to \\x1b[31m") and done.stdout.count(b"\\x07") > 1
    assert not {byte for byte in done.stdout if byte < 32} - {10}


def test_the_interactive_mode_without_the_samples(run: Path) -> None:
    child = pexpect.spawn(
        sys.executable, command(run, "--interactive", "--max-new-tokens", "8", "--temperature", "9"),
        encoding="utf-8", timeout=60, dimensions=(50, 100), env=os.environ | {"TERM": "dumb"},
    )  # fmt: skip
    child.expect("prompt> ")
    assert "quick brown" not in (child.before or "") and "/help lists the settings" in (
        child.before or ""
    )
    for line, wanted in (
        ("/help", "/temperature 0.7 .*0 is greedy.*now: temperature 9.0  length 8  top-k off"),
        ("/temperature 0", "temperature 0.0  length 8"),
        ("/length 30", "temperature 0.0  length 30"),
        ("/seed 5", "length 30.*seed 5"),
        ("to", "to"),
        ("/seed", "error: /seed needs a whole number or off"),
        ("/x", "error: unknown command /x"),
        ("//", "error: .*lacks '/'"),
    ):
        child.sendline(line)
        child.expect(f"(?s){wanted}.*prompt> ")
    child.sendline("/quit")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_settings_reach_the_text(run: Path) -> None:
    """Prompts from a pipe: the greedy text of 12 characters is that of the flags."""
    lines = "/temperature 0\n/length 12\nto be\n"
    done = subprocess.run(
        [sys.executable, *command(run, "-i")],
        input=lines, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    flags = ("--prompt", "to be", "--temperature", "0", "--max-new-tokens", "12")
    wanted = subprocess.run(
        [sys.executable, *command(run, *flags)],
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == wanted.returncode == 0
    assert wanted.stdout.strip() and wanted.stdout in done.stdout


def test_a_reader_who_has_enough_ends_it_quietly(run: Path) -> None:
    endless = command(run, "--prompt", "to be", "--max-new-tokens", str(10**12), "--context", "0")
    process = subprocess.Popen(
        [sys.executable, *endless],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert process.stdout.read(20).startswith(b"to be")
    process.stdout.close()
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (141, b"")


def test_ctrl_c_ends_it_with_130(run: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, *command(run, "--prompt", "to be", "--max-new-tokens", str(10**12))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.read(20)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, b"")


def test_weights_that_are_no_numbers_are_one_line(run: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    for name in ("best", "last"):
        file = copy / "checkpoints" / f"{name}.ckpt"
        if file.exists():
            content = torch.load(file, weights_only=True)
            for tensor in content["state_dict"].values():
                tensor.fill_(float("nan"))
            torch.save(content, file)
    done = subprocess.run(
        [sys.executable, *command(copy, "--prompt", "to")],
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    def mistake() -> int:
        raise UserError("a\x1b[2J\nb")

    def interrupted() -> int:
        raise KeyboardInterrupt

    assert exit_code(lambda: 0) == 0
    assert exit_code(mistake) == 2
    assert capsys.readouterr().err == "error: a\\x1b[2J b\n"
    assert exit_code(interrupted) == 130
    with pytest.raises(ZeroDivisionError):  # a fault of ours keeps its traceback
        exit_code(lambda: 1 // 0)
