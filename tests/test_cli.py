"""Mistakes on the command line: one line that tells them, exit code 2, nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modgpt.commands.train import main
from tests.checkout import ROOT

COMPOSITION = [
    (["fnn=moe"], "unknown group or key 'fnn'; did you mean ffn?"),
    (["+fnn=moe"], "unknown group or key 'fnn'; did you mean ffn?"),
    (["++learning_rate=1"], "unknown group or key 'learning_rate'"),
    (["ffn=mo"], "unknown option ffn=mo; did you mean moe? (ffn has: "),
    (["experiment=null"], "experiment=null is not possible: leave a group out with '~experiment'"),
    (["norm@attention.qk_norm=null"], "leave a group out with '~norm@attention.qk_norm'"),
    (["experiment=nanogp"], "unknown option experiment=nanogp; did you mean nanogpt?"),
    (["norm@attention.qk_norm=foo"], "unknown option norm=foo"),
    (["model.n_layer=3"], "unknown key 'model.n_layer'; did you mean n_layers?"),
    (["attention=local_window", "attention.windw=3"], "did you mean window?"),
    (["attention.window=5"], "unknown key 'attention.window'; attention=local_window has it"),
    (["trainr.max_steps=3"], "unknown group 'trainr'; did you mean trainer?"),
    (["foo=[1"], "cannot read 'foo=[1'"),
    (["bogus"], "cannot read 'bogus'"),
    (["~attention"], "the group attention cannot be left out"),
    (["ffn=moe,swiglu"], "ffn=moe,swiglu gives several values: add -m"),
    (["resume=/nowhere"], "/nowhere is not the folder of a run"),
]

VALUES = [
    (["+attention.foo=2"], "unknown key 'attention.foo' (attention has:"),
    (["+trainer.bogus=1"], "unknown key 'trainer.bogus'"),
    (["model.d_model=130", "model.n_heads=4"], "model.d_model=130 is not divisible by model.n_heads=4"),
    (["model.n_heads=0"], "model.n_heads must be at least 1, got 0"),
    (["model.d_model=abc"], "model.d_model must be a whole number, got 'abc'"),
    (["model.n_layers=2.5"], "model.n_layers must be a whole number, got 2.5"),
    (["model.dropout=1.5"], "model.dropout must lie in [0, 1), got 1.5"),
    (["optimizer.lr=abc"], "optimizer.lr must be a number, got 'abc'"),
    (["optimizer.lr=-1"], "optimizer.lr must not be negative, got -1"),
    (["attention=local_window", "attention.window=0"], "attention.window must be at least 1, got 0"),
    (["attention=linear", "attention.scale=2"], "attention.scale=2 has no effect"),
    (["attention.bias=3"], "attention.bias must be true or false, got 3"),
    (["ffn=moe", "ffn.top_k=9"], "ffn.top_k=9 must lie between 1 and ffn.n_experts=8"),
    (["ffn=moe", "model.d_model=36"], "multiple of 8, got model.d_model=36"),
    (["block.norm_at=under"], "block.norm_at must be in or out or both, got 'under'"),
    (["pos=rope", "model.d_model=10"], "rotated head width must be even, got 5"),
    (["model.block_size=6000"], "model.block_size=6000 needs at least 6668"),
    (["data.batch_size=0"], "data.batch_size must be at least 1, got 0"),
    (["trainer.max_steps=0"], "trainer.max_steps must be a whole number of at least 1, got 0"),
    (["trainer.max_steps=1e3"], "trainer.max_steps must be a whole number of at least 1, got 1000.0"),
    (["trainer.precision=foo"], "trainer.precision must be"),
    (["trainer.accelerator=foo"], "invalid accelerator name"),
    (["schedule.warmup_steps=500"], "schedule.warmup_steps=500 must be below trainer.max_steps=30"),
    (["seed=x"], "seed must be a whole number, got 'x'"),
    (["seed=-1"], "seed must lie between 0 and 4294967295, got -1"),
    (["callbacks.best.dirpath=0"], "callbacks.best.dirpath must be a folder or null, got 0"),
    (["run_name=a/b"], "run_name='a/b' cannot name a folder"),
    (["output_dir=/proc/here"], "cannot make the folder /proc/here"),
]


def ids(case: object) -> str | None:
    return " ".join(case) if isinstance(case, list) else ""


def check_mistake(
    arguments: list[str], text: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(arguments)
    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1, f"more than one line: {err}"
    assert text in err
    assert not folder.exists() or not list(folder.iterdir()), "something was written"


@pytest.mark.parametrize(("arguments", "text"), COMPOSITION, ids=ids)
def test_composition(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_mistake([*arguments, f"output_dir={tmp_path / 'runs'}"], text, tmp_path / "runs", capsys)


@pytest.mark.parametrize(("arguments", "text"), VALUES, ids=ids)
def test_value(
    arguments: list[str],
    text: str,
    overrides: Callable[..., list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    check_mistake(overrides(*arguments), text, tmp_path / "runs", capsys)


def test_text_files(
    overrides: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "bad.txt": (b"abc\xffdef", "is not UTF-8: byte 0xff at offset 3"),
        "empty.txt": (b"", "is empty"),
        "short.txt": (b"hello world", "has 11 characters: model.block_size=16 needs at least 19"),
    }
    for name, (content, text) in files.items():
        (tmp_path / name).write_bytes(content)
        check_mistake(overrides(f"data.path={tmp_path / name}"), text, tmp_path / "runs", capsys)
    check_mistake(overrides("data.path=/no/such"), "no such file: /no/such", tmp_path / "runs", capsys)
    check_mistake(overrides("data.path=null"), "data.path=FILE", tmp_path / "runs", capsys)
    (tmp_path / "empty").mkdir()
    folder = overrides(f"data.path={tmp_path / 'empty'}")
    check_mistake(folder, "has no text: no file in it ends in .txt", tmp_path / "runs", capsys)


def test_the_shortest_text_trains(overrides: Callable[..., list[str]], tmp_path: Path) -> None:
    """The minimum that the error states is enough, and one character less is not."""
    path = tmp_path / "short.txt"
    arguments = overrides(f"data.path={path}", "trainer.max_steps=4")
    path.write_text("abcdefghijklmnopqrs"[:18])
    assert main(arguments) == 2
    path.write_text("abcdefghijklmnopqrs"[:19])
    assert main(arguments) == 0


def test_a_taken_name_is_refused(
    overrides: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / "precious.txt").write_text("keep me")
    assert main(overrides("run_name=mine")) == 2
    err = capsys.readouterr().err
    assert f"{folder} exists: choose another run_name" in err
    assert [p.name for p in folder.iterdir()] == ["precious.txt"]


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a user does."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / name), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"COLUMNS": "100"},
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["fnn=moe"], "did you mean ffn?"), (["data=text", "data.path=/no/such"], "no such file")],
    ids=ids,
)
def test_scripts_exit_with_2_and_no_traceback(arguments: list[str], text: str) -> None:
    done = script("train.py", *arguments)
    assert done.returncode == 2
    assert text in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_wrong_composition_does_not_import_torch() -> None:
    """What makes the answer quick, without timing it."""
    code = (
        "import sys; from modgpt.commands.train import main; code = main(['ffn=mo']);"
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr


def test_the_composed_configuration_can_be_shown() -> None:
    done = script("train.py", "ffn=moe", "--cfg", "job", "--package", "ffn")
    assert done.returncode == 0
    assert "n_experts: 8" in done.stdout
