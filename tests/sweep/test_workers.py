"""The engine `workers` with processes made up: devices, and jobs that ran out of memory."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

import modgpt.sweep.engines.workers as pool
from modgpt.config.compose import compose_job
from modgpt.errors import UserError
from modgpt.runs.record import RunRecord, read_record, write_record
from modgpt.sweep.engines.workers import Workers
from modgpt.sweep.job import DONE, OUT_OF_MEMORY, visible_device
from modgpt.sweep.plan import Planned


class Process:
    """Ends, when it is looked at for the first time, as its job's folder says."""

    exitcodes: ClassVar[dict[str, list[int]]] = {}
    log: ClassVar[list[tuple[str, int | None, int]]] = []
    alive = 0
    sentinel = 0

    def __init__(self, target: Any, args: tuple[Any, Path, int | None]) -> None:
        _, self.folder, self.device = args

    def start(self) -> None:
        Process.alive += 1
        Process.log.append((self.folder.name, self.device, Process.alive))

    def is_alive(self) -> bool:
        return False

    def join(self) -> None:
        Process.alive -= 1
        self.exitcode = Process.exitcodes[self.folder.name].pop(0)
        status, reason = ("failed", "OutOfMemoryError") if self.exitcode else ("finished", None)
        write_record(self.folder, RunRecord(status, {}, [], seed=1, reason=reason))

    def terminate(self) -> None:
        pass


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(pool, "wait", lambda *_, **__: None)
    monkeypatch.setattr(Process, "log", [])
    monkeypatch.setattr(Process, "alive", 0)


def workers(most: int, **options: Any) -> Workers:
    made = Workers(most, **{"n_jobs": None, "timeout": None, "jobs_per_device": None} | options)
    made.context = SimpleNamespace(Process=Process)  # type: ignore[assignment]
    return made


def jobs(folder: Path, exitcodes: dict[str, list[int]]) -> list[Planned]:
    Process.exitcodes = exitcodes
    job = compose_job()
    for name in exitcodes:
        (folder / name).mkdir()
    return [Planned(job, folder / name, status=None) for name in exitcodes]


@pytest.mark.parametrize("given", [0, -1])
def test_jobs_per_device_must_be_positive(given: int) -> None:
    with pytest.raises(UserError, match=f"jobs_per_device must be at least 1, got {given}"):
        workers(4, jobs_per_device=given)


def test_jobs_per_device_needs_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="needs a CUDA device, and this machine has none"):
        workers(4, jobs_per_device=2)


def test_jobs_spread_over_the_devices(two_gpus: None, tmp_path: Path) -> None:
    engine = workers(9, jobs_per_device=2)
    assert engine.n_jobs == 4
    assert workers(9).n_jobs == 2 and workers(1).n_jobs == 1
    progress = engine.run(jobs(tmp_path, {name: [DONE] for name in "abcd"}), lambda _: None)
    assert [e.folder.name for e in progress.finished] == ["a", "b", "c", "d"]
    assert [device for _, device, _ in Process.log] == [0, 1, 0, 1]


def test_out_of_memory_beside_others_gets_the_device_for_itself(two_gpus: None, tmp_path: Path) -> None:
    engine = workers(4, jobs_per_device=2)
    listed = jobs(tmp_path, {"a": [DONE], "b": [OUT_OF_MEMORY, DONE], "c": [DONE], "d": [DONE]})
    progress = engine.run(listed, lambda _: None)
    assert len(progress.finished) == 4 and not progress.failed
    assert Process.log[-1][0] == "b" and Process.log[-1][2] == 1, "nothing else runs meanwhile"


def test_out_of_memory_with_a_device_for_itself_has_failed(two_gpus: None, tmp_path: Path) -> None:
    listed = jobs(tmp_path, {"a": [OUT_OF_MEMORY], "b": [DONE]})  # one on each device
    progress = workers(2).run(listed, lambda _: None)
    ((entry, reason),) = progress.failed
    assert entry.folder.name == "a" and reason == "OutOfMemoryError"


@pytest.mark.parametrize("at_once", [True, False], ids=["while it fails", "before its second try"])
def test_an_interrupted_sweep_still_owes_the_second_try(
    at_once: bool, two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = workers(4, jobs_per_device=2)
    listed = jobs(tmp_path, {"a": [DONE], "b": [DONE], "c": [OUT_OF_MEMORY], "d": [DONE]})

    def interrupt(*_: Any, **__: Any) -> None:
        engine.interrupted = signal.SIGINT

    if not at_once:
        monkeypatch.setattr(pool, "wait", interrupt)
    progress = engine.run(listed, interrupt if at_once else lambda _: None)
    assert [e.folder.name for e in progress.waiting] == ["c"]
    assert not progress.failed
    assert read_record(tmp_path / "c").status == "interrupted", "so that the next start begins it"


def test_devices_are_those_that_the_user_left_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_device(1) == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5d,7")
    assert [visible_device(n) for n in range(3)] == ["3", "GPU-5d", "7"]
