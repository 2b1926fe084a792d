"""Sweeps through the real script: isolation, resuming, sharing, and what is told before and after."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from modgpt.compare.analysis import analyse
from modgpt.compare.load import load_results
from modgpt.runs.checkpoint import model_weights, read_checkpoint
from modgpt.runs.window_losses import read_window_losses
from tests.checkout import ROOT
from tests.sweep.script import finish, in_the_middle, leases, records, start, sweep, wait_for

pytestmark = pytest.mark.slow  # each sweep starts the real program


def test_a_sweep_runs_each_job_and_a_second_one_none(arguments: list[str], tmp_path: Path) -> None:
    code, out, err = sweep("ffn=standard,moe", "seed=1,2", *arguments)
    assert code == 0, err
    assert "4 finished, 0 failed, 0 were finished before, 0 skipped" in out
    before = records(tmp_path)
    assert sorted(r["choices"]["ffn"] + str(r["seed"]) for r in before.values()) == [
        "moe1", "moe2", "standard1", "standard2",
    ]  # fmt: skip
    for name, record in before.items():
        assert record["status"] == "finished" and record["final_step"] == 20
        assert name.startswith(f"flash-{record['choices']['ffn']}-rmsnorm-rope-s{record['seed']}-")
        folder = tmp_path / "s" / name
        assert (folder / "log.txt").exists() and not (folder / "lease.json").exists()
        assert list(folder.glob("events.out.tfevents.*")), "TensorBoard names the run by its choices"
    # The grid has grown: finished jobs are left alone, new ones run.
    code, out, err = sweep("ffn=standard,moe,swiglu", "seed=1,2", *arguments)
    assert code == 0, err
    assert "2 finished, 0 failed, 4 were finished before" in out
    after = records(tmp_path)
    assert {name: after[name] for name in before} == before
    # Whoever forgets the name of a sweep, or gives another, is told where its jobs are.
    other = [a for a in arguments if not a.startswith("sweep_name=")]
    code, out, err = sweep("ffn=standard,moe,swiglu", "seed=3,2", *other, "dry_run=true")
    assert code == 0, err
    assert f"3 of these jobs are already in {tmp_path / 's'}: sweep_name=s goes on with it" in out


def test_a_dry_run_shows_and_writes_nothing(arguments: list[str], tmp_path: Path) -> None:
    code, out, err = sweep(*arguments, "ffn=standard,moe", "model.d_model=16,20", "dry_run=true")
    assert code == 0, err
    assert "4 jobs, 3 to run" in out and "SKIPPED: ffn=moe needs a width" in out
    assert "parameters" in out and "FLOPs/token" in out and "estimate" in out
    assert not (tmp_path / "s").exists()


def test_parts_that_do_not_fit_are_skipped_with_the_reason(arguments: list[str], tmp_path: Path) -> None:
    code, out, err = sweep(*arguments, "model.d_model=16,18", "ffn=moe")
    assert code == 0, err
    assert "1 finished, 0 failed, 0 were finished before, 1 skipped" in out
    assert "\nskipped: pos=rope rotates pairs: the rotated head width must be even, got 9" in out
    assert [r["status"] for r in records(tmp_path).values()] == ["finished"], "and leaves no folder"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("ffn=standard,mo", "unknown option ffn=mo; did you mean moe?"),
        ("fnn=standard,moe", "unknown group or key 'fnn'"),
        ("attention.windw=3,4", "unknown key 'attention.windw'"),
        ("optimizer.lr=1e-3,fast", "optimizer.lr must be a number, got 'fast'"),
        ("hydra.launcher.n_jobs=0", "n_jobs must be at least 1, got 0"),
        ("sweep_name=a/b", "sweep_name='a/b' cannot name a folder"),
    ],
)
def test_one_mistake_refuses_the_whole_sweep(
    wrong: str, text: str, arguments: list[str], tmp_path: Path
) -> None:
    code, _, err = sweep(*arguments, wrong)
    assert code == 2
    assert text in err and err.startswith("error: ") and err.count("\n") == 1, err
    assert not records(tmp_path)


def test_a_failing_job_costs_itself_alone(arguments: list[str], tmp_path: Path) -> None:
    command = ("optimizer.lr=1e-2,1e30", "trainer.log_every_n_steps=1", *arguments)
    code, out, err = sweep(*command)
    assert code == 1
    assert "1 finished, 1 failed, 0 were" in out
    assert "FAILED" in err and "train/loss is nan" in err
    (failed,) = [r for r in records(tmp_path).values() if r["status"] == "failed"]
    assert "optimizer.lr=1e+30" in failed["overrides"]
    # Not again, unless asked; the exit code still tells.
    code, out, _ = sweep(*command)
    assert code == 1 and "0 finished, 0 failed, 1 were finished before" in out
    assert "1 failed before (retry_failed=true runs them again)" in out
    code, out, _ = sweep(*command, "retry_failed=true")
    assert code == 1 and "0 finished, 1 failed, 1 were finished before" in out


def test_a_killed_job_costs_itself_alone(arguments: list[str], tmp_path: Path) -> None:
    process = start("seed=1,2,3", *arguments, "trainer.max_steps=300", "hydra.launcher.n_jobs=1")
    os.kill(wait_for(lambda: list(leases(tmp_path)))[0], signal.SIGKILL)
    code, out, err = finish(process)
    assert code == 1
    assert "2 finished, 1 failed" in out and "killed by SIGKILL" in err
    code, out, err = sweep("seed=1,2,3", *arguments, "trainer.max_steps=300", "retry_failed=true")
    assert code == 0, err
    assert "1 finished, 0 failed, 2 were finished before" in out


def test_a_job_over_its_time_is_stopped(arguments: list[str], tmp_path: Path) -> None:
    code, _, err = sweep(*arguments, "trainer.max_steps=1000000", "hydra.launcher.timeout=3")
    assert code == 1
    assert "over its timeout of 3 s" in err
    (record,) = records(tmp_path).values()
    assert record["status"] == "failed"


def test_two_processes_share_one_sweep(arguments: list[str], tmp_path: Path) -> None:
    command = ("seed=range(1,7)", *arguments, "trainer.max_steps=100", "hydra.launcher.n_jobs=1")
    first, second = start(*command), start(*command)
    done = [finish(process) for process in (first, second)]
    assert [code for code, _, _ in done] == [0, 0], done
    assert [r["status"] for r in records(tmp_path).values()] == ["finished"] * 6
    for name in records(tmp_path):
        log = (tmp_path / "s" / name / "log.txt").read_text()
        assert log.count("step 100  val/loss") == 1, f"{name} ran twice"


def test_ctrl_c_saves_and_the_same_command_goes_on(arguments: list[str], tmp_path: Path) -> None:
    command = ("seed=1,2", *arguments, "trainer.max_steps=1500", "trainer.val_check_interval=500")
    process = start(*command)
    wait_for(lambda: list(tmp_path.glob("s/*/checkpoints/last.ckpt")))
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130, err
    assert "the same command with sweep_name=s goes on with it" in out
    assert "interrupted" in {r["status"] for r in records(tmp_path).values()}
    code, _, err = sweep(*command)
    assert code == 0, err
    resumed = [r["resumed_at_steps"] for r in records(tmp_path).values()]
    assert any(resumed)


def test_sigkill_at_random_moments_changes_no_result(arguments: list[str], tmp_path: Path) -> None:
    """The whole process group killed again and again, until the sweep is complete: the same losses."""
    command = ["attention=flash,linear", "ffn=standard,moe", "seed=1,2", *arguments,
               "trainer.max_steps=400", "trainer.val_check_interval=50"]  # fmt: skip
    code, _, err = sweep(*command, "sweep_name=s")
    assert code == 0, err
    undisturbed = {p.name: p for p in (tmp_path / "s").iterdir() if p.is_dir()}
    moments, cut = random.Random(0), 0
    disturbed = [*command, "sweep_name=killed"]
    for attempt in range(40):
        process = start(*disturbed)
        if attempt % 2:  # anywhere: imports, planning, between two jobs
            time.sleep(moments.uniform(1, 12))
        else:  # in the middle of a job that has something to go on from
            wait_for(lambda p=process: in_the_middle(tmp_path / "killed") or p.poll() is not None)
            time.sleep(moments.uniform(0, 0.4))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        cut += len(in_the_middle(tmp_path / "killed"))
        if cut >= 4:
            break
    assert cut >= 4, "it was hardly disturbed"
    code, _, err = sweep(*disturbed)
    assert code == 0, err
    resumed = 0
    for name, folder in undisturbed.items():
        other = tmp_path / "killed" / name
        a, b = (json.loads((f / "result.json").read_text()) for f in (folder, other))
        resumed += len(b["resumed_at_steps"])
        for key in ("final_val_loss", "best_val_loss", "best_step", "tokens_seen"):
            assert a[key] == b[key], f"{key} of {name}"
        w, v = (model_weights(read_checkpoint(f / "checkpoints" / "last.ckpt")) for f in (folder, other))
        assert all(torch.equal(w[key], v[key]) for key in w), name
    assert resumed > 0, "no job was cut in the middle"


def test_a_job_out_of_memory_beside_others_runs_again_alone(
    arguments: list[str], tmp_path: Path
) -> None:
    """A job that finds its device full while another one is on it gets the device for itself."""
    greedy = [
        "+callbacks.greedy._target_=tests.sweep.greedy.Greedy",
        f"+callbacks.greedy.sweep={tmp_path / 's'}",
    ]
    code, out, err = sweep("seed=1,2,3", *arguments, *greedy, "trainer.max_steps=100",
                           "hydra.launcher.n_jobs=3", PYTHONPATH=str(ROOT))  # fmt: skip
    assert code == 0, err
    assert "3 finished, 0 failed" in out
    logs = [p.read_text() for p in tmp_path.glob("s/*/log.txt")]
    assert sum("OutOfMemoryError" in log for log in logs) >= 2, "some met, and gave way"


def test_a_job_out_of_memory_alone_has_failed(arguments: list[str], tmp_path: Path) -> None:
    greedy = ["+callbacks.greedy._target_=tests.sweep.greedy.Greedy", "+callbacks.greedy.sweep=null"]
    code, _, err = sweep("seed=1", *arguments, *greedy, PYTHONPATH=str(ROOT))
    assert code == 1
    assert "OutOfMemoryError" in err and err.count("FAILED") == 1


def test_a_job_on_two_devices_computes_what_it_does_on_one(arguments: list[str], tmp_path: Path) -> None:
    """DDP inside a sweep: the further process runs the job, not the sweep, on its share of a batch."""
    command = ("ffn=standard,moe", *arguments, "model.dropout=0", "trainer.precision=32-true",
               "hydra.launcher.n_jobs=1")  # fmt: skip
    code, _, err = sweep(*command)
    assert code == 0, err
    code, out, err = sweep(*command, "trainer.devices=2", "sweep_name=two")
    assert code == 0, err
    assert "2 finished, 0 failed" in out
    for name, one in records(tmp_path).items():
        two = json.loads((tmp_path / "two" / name / "result.json").read_text())
        assert two["tokens_seen"] == one["tokens_seen"]
        # The balance loss is not linear in the batch: each process balances its own share.
        close = 1e-5 if one["choices"]["ffn"] == "standard" else 2e-2
        assert abs(two["final_val_loss"] - one["final_val_loss"]) < close
        assert two["final_val_loss"] != one["final_val_loss"], "other sums: it was not the same process"
        alone, shared = (read_window_losses(tmp_path / sweep_name / name) for sweep_name in ("s", "two"))
        assert alone and shared and (alone.targets == shared.targets).all()
        np.testing.assert_allclose(
            shared.nats / shared.targets, alone.nats / alone.targets, atol=10 * close
        )
        log = (tmp_path / "two" / name / "log.txt").read_text()
        assert log.count("step 20  val/loss") == 1 and "jobs of this sweep" not in log


def test_a_job_on_two_devices_stops_and_goes_on(arguments: list[str], tmp_path: Path) -> None:
    command = ("seed=1", *arguments, "model.dropout=0", "trainer.max_steps=120", "trainer.devices=2",
               "callbacks.last.every_n_train_steps=10")  # fmt: skip
    process = start(*command)
    wait_for(lambda: list(tmp_path.glob("s/*/checkpoints/last.ckpt")))
    os.killpg(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130, err
    (record,) = records(tmp_path).values()
    assert record["status"] == "interrupted"
    code, _, err = sweep(*command)
    assert code == 0, err
    (record,) = records(tmp_path).values()
    assert record["status"] == "finished" and record["resumed_at_steps"]
    code, _, err = sweep(*command, "sweep_name=undisturbed")
    assert code == 0, err
    (other,) = tmp_path.glob("undisturbed/*/result.json")
    assert json.loads(other.read_text())["final_val_loss"] == record["final_val_loss"]


def test_names_of_sweeps_never_meet() -> None:
    from modgpt.sweep.launch import new_name

    assert len({new_name() for _ in range(1000)}) == 1000


def test_a_sweep_ends_with_its_verdicts(arguments: list[str], tmp_path: Path) -> None:
    """The same as the comparison's, of the runs in its folder."""
    code, out, err = sweep(*arguments, "ffn=swiglu,standard", "seed=1,2,3")
    assert code == 0, err
    results = load_results([tmp_path / "s"])
    [difference] = analyse(results).differences
    assert f"│ {difference.value:+.3f} ± {difference.high - difference.value:.3f} │" in out
    assert "modgpt compare" in out
