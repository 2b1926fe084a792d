"""Launchers that are not ours: submitit, which is Slurm's, by its local executor; and Hydra's basic."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from modgpt.runs.checkpoint import model_weights, read_checkpoint
from modgpt.sweep.requeue import over
from tests.sweep.script import finish, records, start, sweep, wait_for

pytestmark = pytest.mark.slow  # each job starts a Python of its own

LOCAL = "hydra/launcher=submitit_local"
SLURM = pytest.param(
    "hydra/launcher=submitit_slurm",
    marks=pytest.mark.skipif(shutil.which("srun") is None, reason="there is no Slurm here"),
)
# What a sweep decides for its jobs, and where their records tell it.
DECIDED = {"threads": "threads", "precision": "precision", "compile": "compiled"}
LONG = ("threads=1", "trainer.max_steps=1500", "trainer.val_check_interval=500")


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def under_way(sweep: Path, previous: int = 0) -> dict[Path, int]:
    """The jobs that train and have saved since `previous` (in ns), with their process numbers."""
    jobs = {}
    for lease in sweep.glob("*/lease.json"):
        try:
            folder, pid = lease.parent, json.loads(lease.read_text())["pid"]
            saved = (folder / "checkpoints/last.ckpt").stat().st_mtime_ns
            status = json.loads((folder / "result.json").read_text())["status"]
        except (OSError, ValueError):
            continue
        if status == "running" and saved > previous and alive(pid):
            jobs[folder] = pid
    return jobs


def test_all_launchers_share_a_sweep(arguments: list[str], tmp_path: Path) -> None:
    code, out, err = sweep("ffn=standard,moe", *arguments, LOCAL)
    assert code == 0, err
    assert "2 finished, 0 failed, 0 were finished before" in out and "[2/2] finished" in out
    first = records(tmp_path)
    for name, record in first.items():
        folder = tmp_path / "s" / name
        assert record["status"] == "finished" and record["final_step"] == 20
        assert "step 20  val/loss" in (folder / "log.txt").read_text()
        assert not (folder / "lease.json").exists()
    assert list(tmp_path.glob("s/.submitit/*/*_log.out"))
    decided = json.loads((tmp_path / "s/sweep.json").read_text())
    for record in first.values():
        assert {name: record[key] for name, key in DECIDED.items()} == decided
    code, out, err = sweep("ffn=standard,moe", *arguments, "hydra/launcher=workers")
    assert code == 0 and "0 finished, 0 failed, 2 were finished before" in out, err
    code, out, err = sweep("ffn=standard,moe,swiglu", *arguments, "hydra/launcher=basic")
    assert code == 0 and "1 finished, 0 failed, 2 were finished before" in out, err
    code, out, err = sweep("ffn=standard,moe,swiglu", *arguments, LOCAL)
    assert code == 0 and "0 finished, 0 failed, 3 were finished before" in out, err
    assert {name: records(tmp_path)[name] for name in first} == first


def test_a_failing_and_a_killed_job_cost_themselves_alone(arguments: list[str], tmp_path: Path) -> None:
    command = ("optimizer.lr=1e-2,1e-3,1e30", "trainer.log_every_n_steps=1", *arguments, *LONG)
    process = start(*command, LOCAL)
    killed, pid = wait_for(lambda: [*under_way(tmp_path / "s").items()])[0]
    os.kill(pid, signal.SIGKILL)
    code, out, err = finish(process)
    assert code == 1
    assert "1 finished, 2 failed" in out
    assert "train/loss is nan" in err
    assert f"{killed.name}: its process ended without a result; see" in err
    code, out, err = sweep(*command, "retry_failed=true", "hydra/launcher=basic")
    assert code == 1 and "1 finished, 1 failed, 1 were finished before" in out, err
    assert records(tmp_path)[killed.name]["resumed_at_steps"]


@pytest.mark.parametrize("launcher", [LOCAL, SLURM])
def test_preemption_changes_no_result(launcher: str, arguments: list[str], tmp_path: Path) -> None:
    """One job gets SIGTERM, as from Slurm's preemption, one SIGUSR2, as before a time limit."""
    command = ("ffn=standard,moe", *arguments, *LONG)
    process = start(*command, launcher)
    preempted: dict[Path, str] = {}
    for signum in (signal.SIGTERM, signal.SIGUSR2):
        jobs = wait_for(
            lambda: {f: pid for f, pid in under_way(tmp_path / "s").items() if f not in preempted}
        )
        folder, pid = jobs.popitem()
        os.kill(pid, signum)
        preempted[folder] = signum.name
    code, out, err = finish(process)
    assert code == 0, err
    assert "2 finished, 0 failed" in out
    for folder, name in preempted.items():
        log = (folder / "log.txt").read_text()
        assert f"stopped by {name}\n" in log and "Requeued job" in log
    code, _, err = sweep(*command, "hydra/launcher=workers", "sweep_name=undisturbed")
    assert code == 0, err
    for name, record in records(tmp_path).items():
        folders = [tmp_path / "s" / name, tmp_path / "undisturbed" / name]
        other = json.loads((folders[1] / "result.json").read_text())
        assert len(record["resumed_at_steps"]) == 1 and not other["resumed_at_steps"]
        for key in ("final_val_loss", "best_val_loss", "best_step", "tokens_seen"):
            assert record[key] == other[key], f"{key} of {name}"
        w, v = (model_weights(read_checkpoint(f / "checkpoints" / "last.ckpt")) for f in folders)
        assert all(torch.equal(w[key], v[key]) for key in w), name


def test_a_time_limit_is_met_as_often_as_allowed(arguments: list[str], tmp_path: Path) -> None:
    """Submitit takes SIGUSR2 for the limit where that is near, as it is from the start for 9 minutes."""
    command = ("seed=1", *arguments, *LONG, "trainer.max_steps=1000000")
    process = start(*command, LOCAL, "hydra.launcher.timeout_min=9")
    previous = 0
    for _ in range(4):  # the first start, and the three more that the local executor allows
        ((folder, pid),) = wait_for(lambda since=previous: under_way(tmp_path / "s", since)).items()
        os.kill(pid, signal.SIGUSR2)
        wait_for(lambda pid=pid: not alive(pid))
        previous = (folder / "checkpoints/last.ckpt").stat().st_mtime_ns
    code, out, err = finish(process)
    assert code == 1 and not err
    assert (
        "1 were stopped and not begun again; the same command with sweep_name=s goes on with them" in out
    )
    (record,) = records(tmp_path).values()
    assert record["status"] == "interrupted" and len(record["resumed_at_steps"]) == 3
    assert "timed-out too many times" in (folder / "log.txt").read_text()


def test_ctrl_c_leaves_the_jobs_to_the_cluster(arguments: list[str], tmp_path: Path) -> None:
    process = start("seed=1,2", *arguments, *LONG, LOCAL)
    wait_for(lambda: len(under_way(tmp_path / "s")) == 2)
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=60)  # not for its output: the jobs' processes hold that open
    assert process.returncode == 130
    wait_for(lambda: [r["status"] for r in records(tmp_path).values()] == ["finished"] * 2)
    _, out, err = finish(process)
    assert (
        "interrupted; 2 jobs go on by themselves; the same command with sweep_name=s goes on with it"
        in out
    )
    assert not err


def test_ctrl_c_stops_jobs_in_the_same_process(arguments: list[str], tmp_path: Path) -> None:
    process = start("seed=1,2", *arguments, *LONG, "hydra/launcher=basic")
    wait_for(lambda: under_way(tmp_path / "s"))
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130 and "interrupted; the same command with sweep_name=s goes on with it" in out
    assert "Traceback" not in err
    (record,) = records(tmp_path).values()
    assert record["status"] == "interrupted"


def test_slurm_that_is_not_there(arguments: list[str], tmp_path: Path) -> None:
    code, _, err = sweep("seed=1,2", *arguments, "hydra/launcher=submitit_slurm", PATH=str(tmp_path))
    assert code == 2 and err.count("\n") == 1
    assert err.startswith('error: hydra/launcher=submitit_slurm: Could not detect "srun"')
    assert not records(tmp_path)


WITHOUT_PLUGIN = """
import pkgutil, sys
from modgpt.commands.train import main
from tests.checkout import ROOT
walk = pkgutil.walk_packages
pkgutil.walk_packages = lambda *a, **k: (m for m in walk(*a, **k) if "submitit" not in m.name)
sys.exit(main(["-m", "hydra/launcher=submitit_slurm", "seed=1,2"]))
"""


def test_a_plugin_that_is_not_there() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_PLUGIN], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "needs submitit: install with pip install -e '.[slurm]'" in done.stderr


@pytest.mark.parametrize(
    ("executor", "squeue", "expected"),
    [
        # Preempted with a grace time, or near its time limit.
        ("slurm", '[ "$4" = 7_1 ] && echo RUNNING || echo COMPLETING', False),
        ("slurm", "echo COMPLETING", True),  # cancelled, or preempted without a grace time
        ("slurm", "exit 1", False),
        ("local", "echo COMPLETING", False),
    ],
)
def test_what_slurm_has_ended_is_not_requeued(
    executor: str, squeue: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "squeue").write_text(f"#!/bin/sh\n{squeue}\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
    for name, value in (("JOB_ID", "7"), ("ARRAY_JOB_ID", "7"), ("ARRAY_TASK_ID", "1")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert over() is expected
