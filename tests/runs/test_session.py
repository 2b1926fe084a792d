"""Signals and owners: from the moment a run has a folder until its process ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback

import modgpt.training.loop
import modgpt.training.summary
from modgpt.commands.train import main
from modgpt.runs.checkpoint import has_checkpoint
from modgpt.runs.lease import Lease
from modgpt.runs.record import RunRecord
from modgpt.runs.session import Held, Interrupted, Session

Overrides = Callable[..., list[str]]
ELSEWHERE = {"host": "another", "machine": "another", "pid": 7, "token": "theirs"}

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
HOOKS = [
    ("setup", "first"),
    ("on_fit_start", "first"),
    ("on_train_start", "first"),  # before the training answers signals itself
    ("on_train_batch_start", "first"),
    ("on_validation_epoch_end", "first"),
    ("on_train_end", "first"),
    ("on_train_end", "last"),
    ("teardown", "first"),
    ("teardown", "last"),  # after the training answers signals itself
]
# A function, what the record says if a signal comes when it is called.
FUNCTIONS = [
    ("modgpt.runs.session.Lease.acquire", None),
    ("modgpt.training.loop.attach", "interrupted"),
    ("modgpt.training.loop.device_name", "interrupted"),
    ("modgpt.training.summary.print_summary", "finished"),
]


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def kill_once(signum: int) -> Callable[..., None]:
    """A hook that sends this process a signal when it is first called."""
    sent: list[int] = []

    def hook(*_: Any, **__: Any) -> None:
        if not sent:
            sent.append(signum)
            os.kill(os.getpid(), signum)

    return hook


def with_callback(callback: Callback, place: str, patch: pytest.MonkeyPatch) -> None:
    """Give the next trainings a callback before or after all others."""
    original = modgpt.training.loop.build_trainer

    def build(*arguments: Any) -> Any:
        trainer: Any = original(*arguments)
        trainer.callbacks.insert(0 if place == "first" else len(trainer.callbacks), callback)
        return trainer

    patch.setattr(modgpt.training.loop, "build_trainer", build)


def check_end(folder: Path, code: int | str | None, signum: int, status: str | None, err: str) -> None:
    """The exit code is the signal's, the record is true, and the advice works."""
    assert code == 128 + signum
    assert "Traceback" not in err
    assert f"stopped by {signal.Signals(signum).name}" in err
    if status is None:
        assert not folder.exists() and "nothing has been written" in err
        return
    assert record(folder)["status"] == status
    assert not (folder / "lease.json").exists()
    for signum in SIGNALS:
        assert signal.getsignal(signum) in (signal.SIG_DFL, signal.default_int_handler)
    if status == "finished":
        assert "is finished" in err
    elif has_checkpoint(folder):
        assert f"go on with: modgpt train resume={folder}" in err
        assert main([f"resume={folder}"]) == 0
        assert record(folder)["status"] == "finished"
    else:
        assert "before its first checkpoint: start it again" in err and "resume=" not in err
        assert main([f"resume={folder}"]) == 2, "the advice not to"


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda s: s.name)
@pytest.mark.parametrize(("hook", "place"), HOOKS)
def test_a_signal_in_any_hook(
    hook: str,
    place: str,
    signum: signal.Signals,
    overrides: Overrides,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    callback = type("Kill", (Callback,), {hook: kill_once(signum)})()
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        with_callback(callback, place, patch)
        main(overrides("run_name=r", "trainer.max_steps=6", "trainer.val_check_interval=3"))
    check_end(tmp_path / "runs" / "r", end.value.code, signum, "interrupted", capsys.readouterr().err)


@pytest.mark.parametrize("signum", SIGNALS, ids=lambda s: s.name)
@pytest.mark.parametrize(("function", "status"), FUNCTIONS)
def test_a_signal_outside_the_training(
    function: str,
    status: str | None,
    signum: signal.Signals,
    overrides: Overrides,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(function, kill_once(signum))
        main(overrides("run_name=r", "trainer.max_steps=6"))
    check_end(tmp_path / "runs" / "r", end.value.code, signum, status, capsys.readouterr().err)


def test_an_ignored_signal_stays_ignored(
    overrides: Overrides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by nohup: the run outlives its terminal."""
    monkeypatch.setattr(Callback, "on_train_batch_start", kill_once(signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(overrides("run_name=r", "trainer.max_steps=6")) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert record(tmp_path / "runs" / "r")["status"] == "finished"


def test_a_second_ctrl_c_stops_at_once(
    overrides: Overrides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(*_: Any, **__: Any) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    callback = type("Kill", (Callback,), {"on_train_batch_start": twice})()
    with_callback(callback, "first", monkeypatch)
    with pytest.raises(SystemExit) as end:
        main(overrides("run_name=r"))
    assert end.value.code == 130
    assert record(tmp_path / "runs" / "r")["status"] == "interrupted"
    assert not has_checkpoint(tmp_path / "runs" / "r")


def test_a_signal_waits_until_the_status_is_written(tmp_path: Path) -> None:
    session = Session()
    with pytest.raises(RuntimeError, match="broken"), session:
        session.take(tmp_path)

        def ending() -> dict[str, Any]:
            os.kill(os.getpid(), signal.SIGTERM)
            return {"tokens_seen": 5}

        with session.recording(RunRecord("running", {}, [], seed=1), ending):
            raise RuntimeError("broken")
    ended = record(tmp_path)
    assert (ended["status"], ended["tokens_seen"]) == ("failed", 5)
    assert ended["reason"] == "RuntimeError: broken"


def test_two_resumes_of_one_run(
    overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "r"
    assert main(overrides("run_name=r", "trainer.max_steps=6")) == 0
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    capsys.readouterr()
    with Session() as session:
        session.take(folder)
        assert main([f"resume={folder}", "trainer.max_steps=9"]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: {folder} is in use by process {os.getpid()} on ")
        assert err.count("\n") == 1
        with pytest.raises(Held), Session() as other:
            other.take(folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert main([f"resume={folder}", "trainer.max_steps=9"]) == 0


class TakenOver(Callback):
    """Another process takes the folder over in some step, as if this one had been suspended."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step
        self.content: dict[Path, bytes] | None = None

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            (self.folder / "lease.json").write_text(json.dumps(ELSEWHERE))
            for logger in trainer.loggers:
                logger.save()
            self.content = content(self.folder)


def content(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "first_write",
    [
        "trainer.log_every_n_steps=1",
        "trainer.val_check_interval=5",
        "callbacks.last.every_n_train_steps=5",
        "trainer.max_steps=5",
    ],
)
def test_the_loser_of_a_folder_writes_nothing_more(
    first_write: str,
    overrides: Overrides,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "runs" / "r"
    taken = TakenOver(folder, step=4)
    with_callback(taken, "last", monkeypatch)
    late = ["trainer.log_every_n_steps=1000", "callbacks.last.every_n_train_steps=1000"]
    assert main(overrides("run_name=r", *late, first_write)) == 1
    err = capsys.readouterr().err
    assert f"{folder} was taken over by process 7 on another" in err
    assert "Traceback" not in err
    assert taken.content == content(folder)


def test_interrupted_is_not_swallowed() -> None:
    """Libraries handle `Exception`; a request to stop must pass through them."""
    assert not issubclass(Interrupted, Exception)


def test_a_lease_is_given_back_however_it_ends(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Session() as session:
        session.take(tmp_path)
        raise ZeroDivisionError
    assert Lease(tmp_path).acquire()


def test_ctrl_c_while_libraries_are_imported_ends_at_once() -> None:
    """A library may swallow a KeyboardInterrupt in its import, and stay half imported."""
    script = (
        "import os, signal\n"
        "from modgpt.commands.importing import ctrl_c_ends\n"
        "with ctrl_c_ends():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "    except BaseException:\n"
        "        pass\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT and not done.stderr
