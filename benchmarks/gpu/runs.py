"""Whole trainings and sweeps on the device, through the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import ROOT
from benchmarks.gpu.piece import Device, Result, Row
from modgpt.runs.checkpoint import model_weights, read_checkpoint

SMALL = (
    *("model.d_model=32", "model.n_layers=2", "model.n_heads=2", "model.block_size=16"),
    *(
        "data.batch_size=4",
        "schedule.warmup_steps=2",
        "callbacks.sample=null",
        "data.eval_batch_size=512",
    ),
)
STARTED = ("callbacks.last.every_n_train_steps=1000", "trainer.log_every_n_steps=1")


def command(device: Device, folder: str, *overrides: str) -> subprocess.CompletedProcess[str]:
    """`modgpt train` with the sizes of the device, its runs in a folder."""
    sizes = () if device.large else (*SMALL, "threads=1")
    places = (f"output_dir={folder}/runs", f"sweep_dir={folder}/sweeps", device.accelerator)
    arguments = [sys.executable, str(ROOT / "scripts/train.py"), *sizes, *places, *overrides]
    return subprocess.run(arguments, capture_output=True, text=True)


def records(folder: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(Path(folder).glob("**/result.json"))]


def resuming(device: Device) -> Result:
    """Twenty steps at once, and twenty with a stop after ten: the same weights, bit for bit."""
    rows = []
    every = ("attention=linear ffn=moe", "attention=flash", "attention=gated_delta norm=layernorm")
    for parts in every if device.large else every[:1]:
        given = [
            *(*parts.split(), *STARTED, "trainer.deterministic=true", "model.dropout=0.1"),
            *("compile=false", "schedule.max_steps=20", "schedule.warmup_steps=2"),
        ]
        with tempfile.TemporaryDirectory() as folder:
            ends = [
                command(device, folder, *given, "run_name=whole", "trainer.max_steps=20"),
                command(device, folder, *given, "run_name=half", "trainer.max_steps=10"),
                command(device, folder, f"resume={folder}/runs/half", "trainer.max_steps=20"),
            ]
            codes = [end.returncode for end in ends]
            same = not any(codes) and same_weights(Path(folder) / "runs")
        rows.append({"parts": parts, "exit codes": str(codes), "passed": same})
    return Result.of_checks(rows)


def same_weights(runs: Path) -> bool:
    """Whether both runs ended with the same weights."""
    whole, half = (
        model_weights(read_checkpoint(runs / name / "checkpoints/last.ckpt"))
        for name in ("whole", "half")
    )
    return all(torch.equal(whole[name], half[name]) for name in whole)


def packing(device: Device) -> Result:
    """Wall time of eight jobs by how many share the device."""
    jobs, steps = (8, 300) if device.large else (2, 5)
    key = "jobs_per_device" if device.is_cuda else "n_jobs"
    rows: list[Row] = []
    for together in (1, 2, 4, 8) if device.large else (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            end = command(device, folder, "-m", f"seed=range(0,{jobs})", f"trainer.max_steps={steps}",
                          f"hydra.launcher.{key}={together}", "schedule.warmup_steps=2")  # fmt: skip
            wall = time.perf_counter() - start
            finished = sum(record["status"] == "finished" for record in records(folder))
        passed = end.returncode == 0 and finished == jobs
        rows.append({"at once": together, "seconds per job": wall / jobs, "finished": finished,
                     "passed": passed})  # fmt: skip
    return Result.of_checks(rows)


def out_of_memory(device: Device) -> Result:
    """Two jobs that fit alone and not together: the one that runs out is run again alone."""
    if not device.is_cuda:
        return Result("needs CUDA", note="tests/sweep/test_workers.py plays it on a CPU")
    large = ("model=nanogpt", "trainer.max_steps=30", "schedule.warmup_steps=2", "compile=false",
             "trainer.val_check_interval=30", "callbacks.sample=null")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        command(device, folder, *large, "data.batch_size=256", "run_name=probe")
        used = records(folder)[0]["peak_memory_bytes"]
    batch = round(256 * 0.62 * torch.cuda.get_device_properties(0).total_memory / used)
    with tempfile.TemporaryDirectory() as folder:
        end = command(device, folder, "-m", "seed=1,2", *large, f"data.batch_size={batch}",
                      "hydra.launcher.jobs_per_device=2")  # fmt: skip
        found = records(folder)
    finished = sum(record["status"] == "finished" for record in found)
    rows = [{"batch size": batch, "finished": finished, "exit code": end.returncode,
             "passed": finished == 2 and end.returncode == 0}]  # fmt: skip
    return Result.of_checks(rows, f"One job of 256 windows holds {used / 2**30:.1f} GiB.")


def grid(device: Device) -> Result:
    """`sweep=components`, packed on the device."""
    if device.large:
        jobs, given = 108, ["trainer.max_steps=300", "hydra.launcher.jobs_per_device=8"]
    else:
        fewer = ("attention=flash,linear", "ffn=moe", "norm=rmsnorm", "pos=rope,alibi")
        jobs, given = 4, [*fewer, "trainer.max_steps=4"]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        end = command(device, folder, "sweep=components", *given)
        wall = time.perf_counter() - start
        finished = sum(record["status"] == "finished" for record in records(folder))
    rows = [{"jobs": jobs, "finished": finished, "wall seconds": wall, "exit code": end.returncode,
             "passed": finished == jobs and end.returncode == 0}]  # fmt: skip
    return Result.of_checks(rows)


def time_to_loss(device: Device) -> Result:
    """nanoGPT's recipe for a GPU and our quickest one: seconds of training, and the loss they reach."""
    recipes = {"nanogpt": "experiment=nanogpt", "sprint": "experiment=sprint"}
    rows = []
    for name, choice in recipes.items():
        steps = () if device.large else ("trainer.max_steps=5", "schedule.warmup_steps=2")
        with tempfile.TemporaryDirectory() as folder:
            end = command(device, folder, choice, *steps)
            found = records(folder)
        record = found[0] if found else {}
        speed, tokens = record.get("tokens_per_second"), record.get("tokens_seen", 0)
        rows.append({
            "recipe": name, "loss": record.get("final_val_loss"), "parameters": record.get("parameters"),
            "training seconds": tokens / speed if speed else None,
            "wall seconds": record.get("wall_seconds"), "passed": end.returncode == 0,
        })  # fmt: skip
    return Result.of_checks(rows)
