"""A job runs in one place at a time."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from modgpt.sweep import lease as lease_module
from modgpt.sweep.lease import Lease, held


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with Lease(tmp_path) as first:
        assert first.acquire()
        assert held(tmp_path)
        assert not Lease(tmp_path).acquire()
    assert not held(tmp_path)
    assert Lease(tmp_path).acquire()


def write(folder: Path, host: str, pid: int, age: float) -> None:
    path = folder / "lease.json"
    path.write_text(json.dumps({"host": host, "pid": pid, "token": "theirs"}))
    os.utime(path, (time.time() - age, time.time() - age))


def test_a_dead_process_here_holds_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    write(tmp_path, socket.gethostname(), process.pid, age=0)
    assert Lease(tmp_path).acquire()


def test_a_killed_child_nobody_waited_for_holds_nothing(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    write(tmp_path, socket.gethostname(), process.pid, age=0)
    assert held(tmp_path)
    process.kill()
    deadline = time.monotonic() + 5
    while held(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not held(tmp_path)
    process.wait()


def test_another_host_holds_until_its_heartbeat_stops(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere", 1, age=10)
    assert held(tmp_path) and not Lease(tmp_path).acquire()
    write(tmp_path, "elsewhere", 1, age=1000)
    taken = Lease(tmp_path)
    assert taken.acquire() and taken.mine()


def test_the_heartbeat_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.01)
    with Lease(tmp_path) as lease:
        assert lease.acquire()
        os.utime(lease.path, (0, 0))
        deadline = time.monotonic() + 5
        while lease.path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lease.path.stat().st_mtime > 0


def test_a_lost_lease_is_not_given_back(tmp_path: Path) -> None:
    """A process that slept too long must not release, nor keep alive, what another has taken."""
    lease = Lease(tmp_path)
    assert lease.acquire()
    write(tmp_path, "elsewhere", 1, age=0)
    assert not lease.mine()
    lease.release()
    assert held(tmp_path)


def _try(folder: Path, wins: str, n: int) -> None:
    if Lease(folder).acquire():
        Path(wins, str(n)).touch()
        time.sleep(1)  # alive while the others try


def test_of_many_at_once_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly_held(*arguments: Any) -> bool:
        answer = held(*arguments)
        time.sleep(0.1)  # time for the others to look, too
        return answer

    monkeypatch.setattr(lease_module, "held", slowly_held)
    wins = tmp_path / "wins"
    wins.mkdir()
    write(tmp_path, "elsewhere", 1, age=1000)  # all see the same stale lease
    context = multiprocessing.get_context("fork")
    racers = [context.Process(target=_try, args=(tmp_path, str(wins), n)) for n in range(6)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert len(list(wins.iterdir())) == 1
