"""Sweeps as Ray tasks, on this machine and on a cluster of several nodes, of which one is killed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from hydra_plugins.modgpt_sweep import RayLauncher
from modgpt.errors import UserError
from modgpt.runs.checkpoint import model_weights, read_checkpoint
from modgpt.runs.lease import read
from modgpt.runs.record import status_of
from tests.sweep.script import finish, leases, records, start, sweep, tiny, wait_for

pytestmark = pytest.mark.slow  # each sweep starts the real program, most of them Ray, too


@pytest.fixture(scope="module", autouse=True)
def ray_folder() -> Iterator[Path]:
    """Where Ray leaves its files, and no token in the home directory."""
    # Not in pytest's folder: the path of a socket may have no more than 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_worker_niceness", "0")  # they would give way to all else on a busy machine
        yield folder
    shutil.rmtree(folder, ignore_errors=True)  # processes that are just ending may write once more


@pytest.fixture
def arguments(corpus: Path, tmp_path: Path) -> list[str]:
    return [*tiny(corpus, tmp_path), "hydra/launcher=ray"]


class Node:
    """A node of a cluster, started as its operator would."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        folder.mkdir()
        self.log = folder / "start.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *arguments,
                 "--temp-dir", str(folder), "--object-store-memory", "100000000"],
                stdout=log, stderr=log, cwd=folder,
            )  # fmt: skip

    def __enter__(self) -> Node:
        wait_for(lambda: "Ray runtime started" in self.log.read_text(), seconds=120)
        return self

    def processes(self) -> list[int]:
        """All of the node's: Ray's and its jobs'."""
        listing = subprocess.check_output(["ps", "-e", "-o", "pid=,ppid="], text=True)
        parents = [tuple(map(int, line.split())) for line in listing.splitlines()]
        found = [self.process.pid]
        for ancestor in found:  # grows
            found += [pid for pid, parent in parents if parent == ancestor]
        return found

    def kill(self) -> None:
        """As if the power had gone."""
        if self.process.poll() is None:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
            self.process.wait()

    def __exit__(self, *_: object) -> None:
        self.kill()


class Cluster:
    """A head with one CPU, and the nodes that join it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("", 0))
            port = str(free.getsockname()[1])
        self.head = Node(
            folder / "head", "--head", "--port", "0", "--ray-client-server-port", port,
            "--include-dashboard", "false", "--num-cpus", "1", "--num-gpus", "0",
        )  # fmt: skip

    def __enter__(self) -> Cluster:
        self.head.__enter__()
        address = self.folder / "head" / "ray_current_cluster"  # written after Ray's last message
        self.address = wait_for(lambda: address.read_text().strip() if address.exists() else "")
        return self

    def __exit__(self, *_: object) -> None:
        self.head.kill()

    def node(self, *arguments: str) -> Node:
        """One more."""
        return Node(Path(tempfile.mkdtemp(dir=self.folder)) / "n", "--address", self.address, *arguments)


@pytest.fixture(scope="module")
def cluster(ray_folder: Path) -> Iterator[Cluster]:
    made = Cluster(ray_folder)
    try:
        yield made.__enter__()
    finally:
        made.__exit__()


class Misbehaving(Callback):
    """Notes each start of the job and the GPUs it sees; kills its process at one learning rate."""

    def __init__(self, lr: float, kill_at: float, notes: str) -> None:
        self.kills, self.notes, self.lr = lr == kill_at, notes, lr

    def on_train_start(self, *_: Any) -> None:
        with open(self.notes, "a") as notes:
            notes.write(f"{self.lr} sees {os.environ['CUDA_VISIBLE_DEVICES']!r}\n")
        if self.kills:
            os.kill(os.getpid(), signal.SIGKILL)


class Greedy(Callback):
    """Notes the share of a GPU that Ray gives the job; with seed 2, less than a whole is too little."""

    def __init__(self, seed: int, notes: str) -> None:
        self.seed, self.notes = seed, notes

    def on_train_start(self, *_: Any) -> None:
        import ray

        share = ray.get_runtime_context().get_assigned_resources()["GPU"]
        with open(self.notes, "a") as notes:
            notes.write(json.dumps([self.seed, share, os.environ["CUDA_VISIBLE_DEVICES"]]) + "\n")
        if self.seed == 2 and share < 1:
            raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_sweep_on_this_machine_is_one_for_other_launchers(
    arguments: list[str], tmp_path: Path
) -> None:
    code, out, err = sweep("seed=1,2", *arguments, "hydra.launcher.gpus_per_job=0")
    assert code == 0, err
    assert "2 finished, 0 failed" in out and not err
    assert "raylet" not in out and "Ray" not in out
    before = records(tmp_path)
    assert [r["final_step"] for r in before.values()] == [20, 20]
    assert all((tmp_path / "s" / name / "log.txt").exists() for name in before)
    code, out, err = sweep("seed=1,2", *arguments, "hydra/launcher=workers")
    assert code == 0, err
    assert "0 finished, 0 failed, 2 were finished before" in out
    assert records(tmp_path) == before


def test_jobs_that_fail_or_kill_their_process_cost_themselves_alone(
    arguments: list[str], tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    misbehaving = "{_target_:tests.sweep.test_ray.Misbehaving,lr:${optimizer.lr},kill_at:1e-3,notes:%s}"
    code, out, err = sweep(
        "optimizer.lr=1e-3,1e-2,1e30", "trainer.log_every_n_steps=1", *arguments,
        "hydra.launcher.gpus_per_job=0", f"+callbacks.misbehaving={misbehaving % notes}",
    )  # fmt: skip
    assert code == 1, err
    assert "1 finished, 2 failed, 0 were" in out
    assert "train/loss is nan" in err and "its process died 2 times" in err and err.count("\n") == 2, err
    assert "raylet" not in out, "Ray's own messages"
    assert sorted(notes.read_text().splitlines()) == [
        "0.001 sees ''", "0.001 sees ''", "0.01 sees ''", "1e+30 sees ''",
    ]  # fmt: skip
    reasons = {r["overrides"][0]: r.get("reason") for r in records(tmp_path).values()}
    assert reasons["optimizer.lr=0.001"] == "its process died 2 times"
    assert reasons["optimizer.lr=0.01"] is None


def test_a_killed_node_changes_no_result(cluster: Cluster, arguments: list[str], tmp_path: Path) -> None:
    """One of two nodes killed in the middle of a job: that goes on at the other, and ends the same."""
    command = ["seed=1,2,3", *arguments, "trainer.max_steps=800", "trainer.val_check_interval=400"]
    code, _, err = sweep(*command, "hydra/launcher=workers", "threads=1", "sweep_name=undisturbed")
    assert code == 0, err
    with cluster.node("--num-cpus", "1", "--num-gpus", "0") as node:
        process = start(*command, f"hydra.launcher.address={cluster.address}")
        cut = wait_for(lambda: in_the_middle(tmp_path, node), seconds=120)
        node.kill()
    assert status_of(cut) == "running"
    code, out, err = finish(process)
    assert code == 0 and not err, err
    assert "2 at once with 1 CPU threads each" in out and "3 finished, 0 failed" in out
    after = records(tmp_path)
    assert len(after[cut.name]["resumed_at_steps"]) == 1
    for name, record in after.items():
        folders = tmp_path / "undisturbed" / name, tmp_path / "s" / name
        expected = json.loads((folders[0] / "result.json").read_text())
        for key in ("status", "final_val_loss", "best_val_loss", "best_step", "tokens_seen"):
            assert record[key] == expected[key], f"{key} of {name}"
        v, w = (model_weights(read_checkpoint(f / "checkpoints" / "last.ckpt")) for f in folders)
        assert v.keys() == w.keys() and all(torch.equal(v[key], w[key]) for key in v), name


def in_the_middle(folder: Path, node: Node) -> Path | None:
    """A job that runs on this node, has saved something and is not at its end."""
    processes = node.processes()
    for path in folder.glob("s/*/checkpoints/last.ckpt"):
        job = path.parents[1]
        if read(job / "lease.json").get("pid") in processes and status_of(job) == "running":
            return job
    return None


def test_ctrl_c_saves_and_the_same_command_goes_on(
    cluster: Cluster, arguments: list[str], tmp_path: Path
) -> None:
    command = ["seed=1,2", *arguments, "trainer.max_steps=1500", "trainer.val_check_interval=500"]
    process = start(*command, f"hydra.launcher.address={cluster.address}")
    wait_for(lambda: list(tmp_path.glob("s/*/checkpoints/last.ckpt")), seconds=120)
    (job,) = leases(tmp_path)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130, err
    assert "the same command with sweep_name=s goes on with it" in out
    assert [r["status"] for r in records(tmp_path).values()] == ["interrupted"]
    assert not list(leases(tmp_path))
    wait_for(lambda: not psutil.pid_exists(job))
    code, _, err = sweep(*command, "hydra/launcher=workers")
    assert code == 0, err
    assert sorted(len(r["resumed_at_steps"]) for r in records(tmp_path).values()) == [0, 1]


def test_jobs_share_a_gpu_and_get_a_whole_one_where_that_is_too_little(
    cluster: Cluster, arguments: list[str], corpus: Path, tmp_path: Path
) -> None:
    # From relative paths, too, though the nodes were started elsewhere.
    here = [f"data.path={os.path.relpath(corpus)}", f"sweep_dir={os.path.relpath(tmp_path)}"]
    notes = tmp_path / "notes"
    greedy = "{_target_:tests.sweep.test_ray.Greedy,seed:${seed},notes:%s}"
    with cluster.node("--num-cpus", "2", "--num-gpus", "1"):  # Ray takes the operator's word for it
        code, out, err = sweep(
            "seed=1,2", *arguments, *here, f"hydra.launcher.address={cluster.address}",
            "hydra.launcher.gpus_per_job=0.5", f"+callbacks.greedy={greedy % notes}",
        )  # fmt: skip
    assert code == 0, err
    assert "2 finished, 0 failed" in out
    shares = sorted(json.loads(line) for line in notes.read_text().splitlines())
    assert shares == [[1, 0.5, "0"], [2, 0.5, "0"], [2, 1.0, "0"]]


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (["gpus_per_job=7"], "no node of the Ray cluster has room for a job with .*gpus_per_job=7"),
        (
            ["address=127.0.0.1:1"],
            "cannot join a Ray cluster at hydra.launcher.address=127.0.0.1:1: ",
        ),
    ],
)
def test_one_mistake_refuses_the_whole_sweep(
    wrong: list[str], text: str, cluster: Cluster, arguments: list[str], tmp_path: Path
) -> None:
    options = [f"address={cluster.address}", *wrong]
    code, out, err = sweep(*arguments, *(f"hydra.launcher.{option}" for option in options))
    assert code == 2 and not out
    assert re.search(text, err) and err.startswith("error: ") and err.count("\n") == 1, err
    assert not records(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"cpus_per_job": 0}, "cpus_per_job must be at least 1, got 0"),
        ({"gpus_per_job": 1.5}, "gpus_per_job must be 0, a fraction below 1 or a whole number, got 1.5"),
        ({"gpus_per_job": -1.0}, "gpus_per_job must be 0, a fraction below 1 or a whole number, got -1"),
        ({"timeout": 0.0}, "timeout must be positive, got 0"),
        ({"address": "there"}, "address must be host:port or auto, got 'there'"),
        ({"address": "ray://there:10001"}, "address must be host:port or auto, got 'ray:"),
    ],
)
def test_values_that_cannot_be(wrong: dict[str, Any], text: str) -> None:
    options = {"address": None, "cpus_per_job": 1, "gpus_per_job": None, "timeout": None} | wrong
    with pytest.raises(UserError, match=text):
        RayLauncher(**options).engine(1)


def test_without_ray_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs ray: install with pip install -e '\.\[ray\]'"):
        RayLauncher(None, 1, None, None).engine(1)
