"""The overhead of a sweep, and the cost of a comparison."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from hydra.utils import instantiate

from benchmarks import ROOT
from modgpt.config.compose import compose_job
from modgpt.sweep.settings import available_cores
from modgpt.training.prepare import build_module, prepare

# One thread, and a model so small that overhead is most of the time of a job.
JOB = (
    *("trainer.max_steps=5", "schedule.warmup_steps=2", "trainer.accelerator=cpu", "threads=1"),
    *("model.d_model=32", "model.n_layers=1", "model.n_heads=2", "model.block_size=32"),
)
SAMPLE_SECONDS = 0.2


def per_job(jobs: int) -> dict[str, Any]:
    """Seconds and memory per job of a sweep of many short jobs, through the real script.

    The time per job is the time from the start of the first job to the end of the last, divided by the
    number of jobs. The overhead is the time per job minus the time that the same steps and validation
    take in a plain loop.

    Args:
        jobs: number of jobs of 5 steps each, which run one after the other.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "scripts/train.py"), "-m", f"seed=range(0,{jobs})", *JOB,
                   f"sweep_dir={folder}", "sweep_name=s", "hydra.launcher.n_jobs=1"]  # fmt: skip
        before = bare_seconds()
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        memory = watch(process, Path(folder) / "s")
        wall = time.perf_counter() - start
        after = bare_seconds()
        if process.returncode:
            raise RuntimeError(f"the sweep ended with exit code {process.returncode}")
        records = [json.loads(p.read_text()) for p in Path(folder).glob("s/*/result.json")]
    records.sort(key=lambda record: record["started_at"])
    moments = [datetime.fromisoformat(r[k]) for r in records for k in ("started_at", "finished_at")]
    span = (max(moments) - min(moments)).total_seconds()
    bare = statistics.median([*before, *after])
    peaks = [record["peak_memory_bytes"] / 2**20 for record in records]
    tenth = max(1, len(memory) // 10)
    return {
        "jobs": len(records),
        "whole sweep, s": wall,
        "per job, s": span / jobs,
        "the same steps and validation in a plain loop, s": bare,
        "overhead per job, s": span / jobs - bare,
        "memory of all its processes, first tenth of the time, MiB": statistics.median(memory[:tenth]),
        "memory of all its processes, last tenth of the time, MiB": statistics.median(memory[-tenth:]),
        "peak memory of the first ten jobs, MiB": statistics.median(peaks[:10]),
        "peak memory of the last ten jobs, MiB": statistics.median(peaks[-10:]),
    }


def at_once(steps: int) -> list[dict[str, Any]]:
    """Seconds per job of a sweep of default models, by the number of jobs at the same time.

    Args:
        steps: of each job. The sweep has twice as many jobs as cores.
    """
    cores, rows = available_cores(), []
    for n_jobs in sorted({1, cores}):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(ROOT / "scripts/train.py"), "-m",
                       f"seed=range(0,{2 * cores})",
                       f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}",
                       f"hydra.launcher.n_jobs={n_jobs}", f"sweep_dir={folder}"]  # fmt: skip
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            records = [json.loads(p.read_text()) for p in Path(folder).glob("*/*/result.json")]
        moments = [datetime.fromisoformat(r[k]) for r in records for k in ("started_at", "finished_at")]
        rows.append({
            "jobs at once": n_jobs,
            "threads of each": records[0]["threads"],
            "seconds per job": (max(moments) - min(moments)).total_seconds() / len(records),
        })  # fmt: skip
    return rows


def bare_seconds(rounds: int = 5) -> list[float]:
    """Seconds of the job's training and validation in a plain loop, once per round."""
    torch.set_num_threads(1)
    ready = prepare(compose_job(JOB))
    cfg, data = ready.config, ready.data
    mixed = torch.autocast("cpu", torch.bfloat16, enabled=cfg.trainer.precision == "bf16-mixed")
    seconds = []
    for _ in range(rounds):
        model = build_module(cfg).model
        optimizer = instantiate(cfg.optimizer)(model)
        batches = iter(data.train_dataloader())
        start = time.perf_counter()
        for _ in range(cfg.trainer.max_steps):
            batch = next(batches)
            with mixed:
                logits = model(batch[:, :-1]).flatten(0, 1)
            F.cross_entropy(logits.float(), batch[:, 1:].flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad(), mixed:
            for batch in data.val_dataloader():
                F.cross_entropy(model(batch[:, :-1]).flatten(0, 1).float(), batch[:, 1:].flatten())
        seconds.append(time.perf_counter() - start)
    return seconds


def watch(process: subprocess.Popen[bytes], sweep: Path) -> list[float]:
    """Samples of a process group's private memory in MiB, from the first finished job to the end.

    Private memory is the cost of copies of a process.
    """
    samples = []
    while process.poll() is None:
        if any('"finished"' in path.read_text() for path in sweep.glob("*/result.json")):
            samples.append(sum(private_mebibytes(pid) for pid in members(process.pid)))
        time.sleep(SAMPLE_SECONDS)
    return samples


def members(group: int) -> list[int]:
    """The process ids of a group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getpgid(int(entry.name)) == group:
                    found.append(int(entry.name))
            except ProcessLookupError:
                continue
    return found


def private_mebibytes(pid: int) -> float:
    """The private memory of a process in MiB; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def comparison(make_sweep: Callable[[Path, int], None], runs: int) -> dict[str, Any]:
    """Seconds, memory and report size of `scripts/compare.py` on synthetic runs.

    Args:
        make_sweep: writes n runs into a folder.
        runs: n.
    """
    with tempfile.TemporaryDirectory() as folder:
        make_sweep(Path(folder), runs)
        start = time.perf_counter()
        command = [sys.executable, str(ROOT / "scripts/compare.py"), folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        size = (Path(folder) / "report.html").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"runs": runs, "seconds": seconds, "report.html, MiB": size / 2**20, "peak memory, MiB": peak}
