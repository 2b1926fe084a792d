"""`sweep.json`: what a sweep has decided for all its jobs, whoever runs them and whenever."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from modgpt.runs.files import write_json
from modgpt.runs.lease import locked
from modgpt.training.hardware import best_compile, best_precision


def read_settings(sweep: Path) -> dict[str, Any] | None:
    """What has been decided; None before the sweep began."""
    try:
        return json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def keep_settings(sweep: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Decide for all jobs of the sweep, unless somebody has already."""
    sweep.mkdir(parents=True, exist_ok=True)
    with locked(sweep / ".lock"):
        decided = read_settings(sweep)
        if decided is None:
            write_json(sweep / "sweep.json", wanted)
        return decided or wanted


def proposal(config: DictConfig, threads: int | None = None) -> dict[str, Any]:
    """What a machine would decide for a sweep that has not begun.

    Sums depend on the number of threads, on the precision and on whether they are compiled, so a job
    that goes on must have the same, on whatever machine.

    Args:
        config: of a job.
        threads: CPU threads of each job; None for all cores of this machine.
    """
    return {
        "threads": config.threads or threads or available_cores(),
        "precision": best_precision(config.trainer.accelerator),
        "compile": best_compile(config.trainer.accelerator),
    }


def with_settings(config: DictConfig, settings: dict[str, Any]) -> DictConfig:
    """A job's configuration with what its sweep has decided and it has left open."""
    config = config.copy()
    config.threads = settings["threads"]
    if config.trainer.precision == "auto":
        config.trainer.precision = settings["precision"]
    if config.compile is None:
        config.compile = settings.get("compile", False)
    return config


def available_cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
