"""Checkpoints: every damage is noticed, and a run goes on from an earlier one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from modgpt.commands import evaluate, export, generate
from modgpt.commands.train import main
from modgpt.errors import UserError
from modgpt.runs.checkpoint import (
    DamagedError,
    latest_checkpoint,
    model_weights,
    read_checkpoint,
    write_checkpoint,
)
from modgpt.training.checkpoint_io import AtomicCheckpointIO

Overrides = Callable[..., list[str]]


def content(step: int = 3) -> dict[str, Any]:
    inside = {"config": {"a": 1}, "tokenizer": {"type": "char"}}
    weights = {"model.a": torch.arange(20.0)}
    return {"modgpt": inside, "state_dict": weights, "global_step": step}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_checkpoint(content(), tmp_path / "a.ckpt")
    found = read_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(found["state_dict"]["model.a"], torch.arange(20.0))
    assert found["global_step"] == 3 and found["modgpt"] == content()["modgpt"]
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["global_step"] == 3, "torch reads it too"


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path, bits = tmp_path / "a.ckpt", random.Random(0)
    write_checkpoint(content(), path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << bits.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(DamagedError, match=r"refused .*a\.ckpt"):
            read_checkpoint(path)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write_checkpoint(content(), path)
    whole = path.read_bytes()
    for length in {0, 1, 78, 79, len(whole) // 2, len(whole) - 79, len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedError):
            read_checkpoint(path)


WRONG = [
    [],
    "text",
    {},
    {"modgpt": {}, "state_dict": {}},
    content() | {"global_step": "7"},
    content() | {"global_step": 7.5},
    content() | {"global_step": True},
    content() | {"global_step": -1},
    content() | {"global_step": None},
    content() | {"state_dict": []},
    content() | {"state_dict": {"model.a": 3}},
    content() | {"state_dict": {3: torch.zeros(2)}},
    content() | {"modgpt": "config"},
    content() | {"modgpt": {}},
    content() | {"modgpt": {"config": [], "tokenizer": {}}},
    content() | {"modgpt": {"config": {}, "tokenizer": None}},
]


@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: repr(w)[-40:])
def test_wrong_content_is_refused(wrong: Any, tmp_path: Path) -> None:
    write_checkpoint(wrong, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"a\.ckpt") as refusal:
        read_checkpoint(tmp_path / "a.ckpt")
    assert not isinstance(refusal.value, DamagedError), "what was written, so nothing else is tried"


def test_the_last_but_one_is_kept(tmp_path: Path) -> None:
    files, last = AtomicCheckpointIO(), tmp_path / "checkpoints" / "last.ckpt"
    for step in (1, 2, 3):
        files.save_checkpoint(content(step), last)
    previous = last.with_name("previous.ckpt")
    assert read_checkpoint(last)["global_step"] == 3 and read_checkpoint(previous)["global_step"] == 2
    assert len(list(last.parent.iterdir())) == 2
    last.write_bytes(b"damaged")
    path, found = latest_checkpoint(tmp_path)
    assert path == previous and found["global_step"] == 2
    # A process that goes on must not replace the good one by the damaged one.
    resumed = AtomicCheckpointIO()
    resumed.load_checkpoint(path)
    resumed.save_checkpoint(content(4), last)
    assert read_checkpoint(last)["global_step"] == 4 and read_checkpoint(previous)["global_step"] == 2


def test_a_lost_lease_keeps_the_checkpoint(tmp_path: Path) -> None:
    files, last = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    files.save_checkpoint(content(1), last)
    answers = iter([None, RuntimeError("taken over")])  # while the next one is written

    def check() -> None:
        if error := next(answers):
            raise error

    files.check = check
    with pytest.raises(RuntimeError, match="taken over"):
        files.save_checkpoint(content(2), last)
    assert read_checkpoint(last)["global_step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def flip(path: Path) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


SHORT = ("callbacks.last.every_n_train_steps=5", "trainer.val_check_interval=10", "model.dropout=0.1")


@pytest.mark.parametrize(
    ("damaged", "step"), [(["last"], 15), (["last", "previous"], 10)], ids=["last", "both"]
)
def test_a_resume_falls_back_and_ends_with_the_same_bits(
    damaged: list[str], step: int, overrides: Overrides, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert main(overrides(*SHORT, "run_name=straight", "schedule=constant")) == 0
    straight, folder = tmp_path / "runs" / "straight", tmp_path / "runs" / "r"
    assert main(overrides(*SHORT, "run_name=r", "schedule=constant", "trainer.max_steps=20")) == 0
    assert not (folder / "checkpoints" / "previous.ckpt").exists(), "not kept of a finished run"
    # As if it had been killed at step 20.
    saved = read_checkpoint(folder / "checkpoints" / "last.ckpt")
    assert saved["global_step"] == 20
    assert main(overrides(*SHORT, "run_name=b", "schedule=constant", "trainer.max_steps=15")) == 0
    earlier = folder.parent / "b" / "checkpoints"
    (earlier / "last.ckpt").rename(folder / "checkpoints" / "previous.ckpt")
    if step == 10:
        assert main(overrides(*SHORT, "run_name=c", "schedule=constant", "trainer.max_steps=10")) == 0
        best = folder.parent / "c" / "checkpoints" / "best.ckpt"
        best.replace(folder / "checkpoints" / "best.ckpt")
    for name in damaged:
        flip(folder / "checkpoints" / f"{name}.ckpt")
    name = {15: "previous", 10: "best"}[step]
    assert main([f"resume={folder}", "trainer.max_steps=30"]) == 0
    assert "last.ckpt: it is damaged (its SHA-256 is not the one at its end)" in caplog.text
    assert f"going on from {name}.ckpt at step {step}" in caplog.text
    assert json.loads((folder / "result.json").read_text())["resumed_at_steps"] == [step]
    one, other = (
        model_weights(read_checkpoint(f / "checkpoints" / "last.ckpt")) for f in (straight, folder)
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_run_whose_checkpoints_are_all_damaged(
    overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "r"
    assert main(overrides("run_name=r", "trainer.max_steps=4")) == 0
    for path in folder.glob("checkpoints/*"):
        flip(path)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    capsys.readouterr()
    readers: list[tuple[Callable[[list[str]], int], list[str]]] = [
        (main, [f"resume={folder}", "trainer.max_steps=8"]),
        (main, overrides(f"init_from={folder}")),
        (generate.main, ["--run", str(folder), "--prompt", "to be"]),
        (generate.main, ["--run", str(folder / "checkpoints" / "last.ckpt"), "--prompt", "to be"]),
        (evaluate.main, ["--run", str(folder)]),
        (export.main, ["--run", str(folder), "--out", str(tmp_path / "exported")]),
    ]
    for read, arguments in readers:
        assert read(arguments) == 2, arguments
        err = capsys.readouterr().err
        assert "it is damaged (its SHA-256" in err and err.count("\n") == 1, err
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert not (tmp_path / "exported").exists()
