"""A folder belongs to one process at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from modgpt.runs import lease as lease_module
from modgpt.runs.lease import STALE_SECONDS, Lease, LeaseLost, created, held, machine

HOUR = 3600.0


class Clock:
    """A monotonic clock that only `sleep` moves; `tick` is called with every move."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.tick: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.tick()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    fake = SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep, time=time.time)
    monkeypatch.setattr(lease_module, "time", fake)
    return clock


def holder(pid: Any, **more: Any) -> dict[str, Any]:
    """A holder on this machine."""
    found = {"host": socket.gethostname(), "machine": machine(), "pid": pid, "token": "theirs"}
    return found | more


ELSEWHERE = {"host": "another", "machine": "another", "pid": 1, "created": 1.0, "token": "theirs"}


def write(folder: Path, holder: Any, age: float = 0.0) -> None:
    (folder / "lease.json").write_text(json.dumps(holder))
    beat(folder, age)


def beat(folder: Path, age: float = 0.0) -> None:
    """A heartbeat by a clock that is `age` seconds behind ours."""
    now = time.time() - age
    os.utime(folder / "lease.json", (now, now))


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with Lease(tmp_path) as first:
        assert first.acquire()
        assert held(tmp_path)
        assert not Lease(tmp_path).acquire()
    assert not held(tmp_path)
    assert Lease(tmp_path).acquire()


def test_a_dead_process_here_holds_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    began = created(psutil.Process(process.pid))
    process.wait()
    write(tmp_path, holder(process.pid, created=began))
    assert not held(tmp_path) and not (tmp_path / "lease.json").exists()
    assert Lease(tmp_path).acquire()


def test_a_killed_child_nobody_waited_for_holds_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    write(tmp_path, holder(process.pid, created=created(psutil.Process(process.pid))))
    assert held(tmp_path)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not held(tmp_path)
    process.wait()


def test_another_process_with_the_number_of_a_dead_one_is_not_the_holder(tmp_path: Path) -> None:
    began = created(psutil.Process())
    write(tmp_path, holder(os.getpid(), created=began))
    assert held(tmp_path)
    write(tmp_path, holder(os.getpid(), created=began - 100))
    assert not held(tmp_path)


def test_a_changed_clock_does_not_make_another_process_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lease(tmp_path) as lease:
        assert lease.acquire()
        real = psutil.boot_time()
        proc: Any = psutil._psplatform  # pyright: ignore[reportAttributeAccessIssue]
        monkeypatch.setattr(proc, "boot_time", lambda: real + HOUR)
        monkeypatch.setattr(psutil, "boot_time", lambda: real + HOUR)
        assert held(tmp_path)


@pytest.mark.parametrize("behind", [HOUR, 0.0, -HOUR])
def test_a_clock_elsewhere_does_not_matter(behind: float, tmp_path: Path, clock: Clock) -> None:
    """Alive is whose heartbeat moves, dead is whose heartbeat stands still, whatever time it shows."""
    write(tmp_path, ELSEWHERE, behind)
    clock.tick = lambda: beat(tmp_path, behind - clock.now)
    for _ in range(100):
        assert held(tmp_path)
        clock.sleep(5)
    assert not Lease(tmp_path).acquire()
    clock.tick = lambda: None
    assert held(tmp_path)
    clock.sleep(STALE_SECONDS + 1)
    assert not held(tmp_path)
    lease = Lease(tmp_path)
    assert lease.acquire() and lease.mine()


def test_a_new_process_watches_before_it_takes_over(tmp_path: Path, clock: Clock) -> None:
    write(tmp_path, ELSEWHERE, age=HOUR)
    before = clock.now
    assert Lease(tmp_path).acquire()
    assert clock.now - before >= STALE_SECONDS


def test_a_suspended_process_here_is_watched_too(tmp_path: Path, clock: Clock) -> None:
    process = subprocess.Popen(["sleep", "60"])
    write(tmp_path, holder(process.pid, created=created(psutil.Process(process.pid))))
    assert not Lease(tmp_path).acquire() and clock.now == 1000, "it runs: an answer at once"
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert Lease(tmp_path).acquire()
    assert clock.now - 1000 >= STALE_SECONDS
    process.kill()
    process.wait()


DAMAGES = [b"", b"{", b"\xff\x00\xfe", b"[]", b"7", b"null", b'{"pid": "x", "machine": 1}', b"[" * 99999]


@pytest.mark.parametrize("content", DAMAGES, ids=lambda c: repr(c[:20]))
def test_a_damaged_lease_is_one_of_somebody_unknown(
    content: bytes, tmp_path: Path, clock: Clock
) -> None:
    (tmp_path / "lease.json").write_bytes(content)
    assert held(tmp_path)
    assert Lease(tmp_path).acquire()
    assert clock.now - 1000 >= STALE_SECONDS


def test_a_damaged_lease_of_this_machine(tmp_path: Path) -> None:
    for pid in ("x", None, [], -1, 10**30, float("nan")):
        write(tmp_path, holder(pid, created=1.0))
        assert not held(tmp_path), pid


def test_the_heartbeat_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.01)
    failing = iter(range(3))
    utime = os.utime

    def sometimes(*arguments: Any) -> None:
        if next(failing, None) is not None:
            raise OSError("stale file handle")
        utime(*arguments)

    with Lease(tmp_path) as lease:
        assert lease.acquire()
        os.utime(lease.path, (0, 0))
        monkeypatch.setattr(os, "utime", sometimes)
        deadline = time.monotonic() + 5
        while lease.path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lease.path.stat().st_mtime > 0


def test_a_lost_lease_is_not_given_back(tmp_path: Path) -> None:
    """A process that slept too long must not release, nor keep alive, what another has taken."""
    lease = Lease(tmp_path)
    assert lease.acquire()
    lease.check()
    write(tmp_path, ELSEWHERE)
    assert not lease.mine()
    with pytest.raises(LeaseLost, match="taken over by process 1 on another"):
        lease.check()
    lease.release()
    assert held(tmp_path)


def _try(folder: Path, wins: str, n: int) -> None:
    if Lease(folder).acquire():
        Path(wins, str(n)).touch()
        time.sleep(1)  # alive while the others try


def test_of_many_at_once_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = lease_module._alive

    def slowly_alive(*arguments: Any) -> bool:
        answer = alive(*arguments)
        time.sleep(0.1)  # time for the others to look, too
        return answer

    monkeypatch.setattr(lease_module, "_alive", slowly_alive)
    wins = tmp_path / "wins"
    wins.mkdir()
    write(tmp_path, holder(2**22 + 1, created=1.0))  # all see the lease of a dead process
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=_try, args=(tmp_path, str(wins), n)) for n in range(6)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(list(wins.iterdir())) == 1
