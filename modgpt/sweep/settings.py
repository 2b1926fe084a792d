"""`sweep.json`: the machine settings of all jobs of a sweep, whoever runs them and whenever."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from modgpt.errors import UserError
from modgpt.files import write_json
from modgpt.runs.lease import locked
from modgpt.training.hardware import Machine, available_cores, best_compile, best_precision


def read_settings(sweep: Path) -> Machine | None:
    """What has been decided; None before the sweep began.

    Raises:
        UserError: the file is damaged.
    """
    path = sweep / "sweep.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        machine = Machine(**values)
        kinds = int, str, bool
        if any(type(value) is not kind for value, kind in zip(values.values(), kinds, strict=True)):
            raise ValueError
        return machine
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path} is damaged: it holds threads, precision and compile of all jobs of the sweep; "
            "remove it to decide them anew, or give another sweep_name"
        ) from error


def keep_settings(sweep: Path, wanted: Machine) -> Machine:
    """Decide for all jobs of the sweep, unless somebody has already."""
    sweep.mkdir(parents=True, exist_ok=True)
    with locked(sweep / ".lock"):
        decided = read_settings(sweep)
        if decided is None:
            write_json(sweep / "sweep.json", asdict(wanted))
        return decided or wanted


def proposal(config: DictConfig, threads: int | None = None) -> Machine:
    """What this machine would decide for a sweep that has not begun.

    Sums depend on the number of threads, on the precision and on whether they are compiled, so a job
    that goes on must have the same, on whatever machine.

    Args:
        config: of a job.
        threads: CPU threads of each job; None for all cores of this machine.
    """
    accelerator = config.trainer.get("accelerator", "auto")
    return Machine(
        config.threads or threads or available_cores(),
        best_precision(accelerator),
        best_compile(accelerator),
    )
