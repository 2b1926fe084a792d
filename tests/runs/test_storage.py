"""Disk full, read-only, too many open files: one line, the last checkpoint whole, a true status."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback

import modgpt.files
import modgpt.runs.record
from modgpt.commands.train import main
from modgpt.files import write_json
from modgpt.runs.checkpoint import read_checkpoint
from tests.runs.test_session import with_callback
from tests.sweep.script import records, sweep, tiny

Overrides = Callable[..., list[str]]
SHORT = ("run_name=r", "callbacks.last.every_n_train_steps=5", "trainer.log_every_n_steps=1")


class At(Callback):
    """Does something at the beginning of a step."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.step, self.action = step, action

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.action()


def check_failed(folder: Path, code: int, err: str, text: str) -> None:
    """The training failed in step 8, and the checkpoint of step 5 is whole."""
    assert code == 1
    line = err.strip().split("\n")[-1]
    assert line.startswith("error: ") and text in line, err
    assert f"the last checkpoint is whole, go on with: modgpt train resume={folder}" in line
    assert "Traceback" not in err
    record = json.loads((folder / "result.json").read_text())
    assert record["status"] == "failed" and text in record["reason"]
    assert read_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] == 5
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["last.ckpt"], "nothing half written"
    assert main([f"resume={folder}"]) == 0


@pytest.fixture
def limits() -> Iterator[Callable[[int, int], None]]:
    """Sets a limit of this process until the test ends."""
    before = {kind: resource.getrlimit(kind) for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)}

    def limit(kind: int, value: int) -> None:
        resource.setrlimit(kind, (value, before[kind][1]))

    yield limit
    for kind, values in before.items():
        resource.setrlimit(kind, values)


def test_a_file_that_may_not_grow(
    overrides: Overrides,
    tmp_path: Path,
    limits: Callable[[int, int], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As with a quota: the checkpoint does not fit, small files do."""
    with monkeypatch.context() as patch:
        full = At(7, lambda: limits(resource.RLIMIT_FSIZE, 20_000))
        with_callback(full, "first", patch)
        code = main(overrides(*SHORT))
    limits(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
    check_failed(tmp_path / "runs" / "r", code, capfd.readouterr().err, "File too large")


def test_too_many_open_files(
    overrides: Overrides,
    tmp_path: Path,
    limits: Callable[[int, int], None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    hold: list[int] = []

    def use_up() -> None:
        limits(resource.RLIMIT_NOFILE, 256)
        try:
            while True:
                hold.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.EMFILE

    with monkeypatch.context() as patch:
        with_callback(At(7, use_up), "first", patch)
        code = main(overrides(*SHORT))
    for handle in hold:
        os.close(handle)
    limits(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    check_failed(tmp_path / "runs" / "r", code, capfd.readouterr().err, "Too many open files")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_every_error_of_the_disk_is_one_line(
    number: int,
    overrides: Overrides,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number), "/disk/file")

    with monkeypatch.context() as patch:
        full = At(7, lambda: patch.setattr("modgpt.training.checkpoint_io.write_checkpoint", fail))
        with_callback(full, "first", patch)
        code = main(overrides(*SHORT))
    check_failed(tmp_path / "runs" / "r", code, capfd.readouterr().err, os.strerror(number))


def test_no_record_no_run(
    overrides: Overrides,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A disk that was full from the start: refused, nothing left behind."""

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(modgpt.runs.record, "write_json", fail)
    folder = tmp_path / "runs" / "r"
    assert main(overrides(*SHORT)) == 2
    assert capfd.readouterr().err.endswith(f"error: cannot write to {folder}: No space left on device\n")
    assert not folder.exists()


@pytest.mark.parametrize("below", ["file/runs", "/proc/runs"])
def test_a_folder_that_cannot_be_made(
    below: str, overrides: Overrides, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(overrides(f"output_dir={tmp_path / below}")) == 2
    err = capfd.readouterr().err
    assert err.startswith("error: cannot make the folder") and err.count("\n") == 1


def test_a_record_on_a_full_disk_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"status": "running"})

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(modgpt.files.tempfile, "mkstemp", full)
    write_json(path, {"status": "failed", "reason": "no space"})
    assert json.loads(path.read_text()) == {"status": "failed", "reason": "no space"}
    write_json(path, {})
    assert path.read_text() == "{}\n"
    with pytest.raises(OSError, match="No space"):  # it would be cut off
        write_json(path, {"text": "x" * 10_000})
    assert path.read_text() == "{}\n"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_a_disk_that_somebody_else_fills(
    overrides: Overrides, disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fill() -> None:
        with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(512))

    with monkeypatch.context() as patch:
        with_callback(At(7, fill), "first", patch)
        code = main(overrides(*SHORT, f"output_dir={disk}"))
    err = capfd.readouterr().err
    (disk / "filler").unlink()
    check_failed(disk / "r", code, err, "No space left on device")


@pytest.mark.slow
def test_a_disk_that_becomes_read_only(
    overrides: Overrides, disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)

    with monkeypatch.context() as patch:
        with_callback(At(7, lambda: remount("ro")), "first", patch)
        code = main(overrides(*SHORT, "logger=none", f"output_dir={disk}"))
    err = capfd.readouterr().err
    assert code == 1 and "error: Read-only file system" in err and "Traceback" not in err
    remount("rw")
    assert main([f"resume={disk / 'r'}"]) == 0


@pytest.mark.slow
def test_a_sweep_goes_on_around_a_job_that_fills_the_disk(corpus: Path, disk: Path) -> None:
    command = (*tiny(corpus, disk), "model.d_model=16,256,24", "hydra.launcher.n_jobs=1", "match=none")
    code, out, err = sweep(*command)
    assert code == 1
    assert "2 finished, 1 failed" in out
    assert "No space left on device" in err and "Traceback" not in err
    statuses = sorted(record["status"] for record in records(disk).values())
    assert statuses == ["failed", "finished", "finished"]
