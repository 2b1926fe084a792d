"""Before the first job: what will run, whether each job fits together, what it costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric import Fabric

from modgpt.config.compose import Job
from modgpt.errors import UserError
from modgpt.model.cost import Cost
from modgpt.runs.record import status_of
from modgpt.runs.saved import job_of
from modgpt.sweep.identity import job_name
from modgpt.training.hardware import Machine
from modgpt.training.loop import quiet_lightning
from modgpt.training.optimizers.schedule_free import gradient_point
from modgpt.training.prepare import Corpora, MisfitError, prepare


@dataclass(eq=False)
class Planned:
    """One job: where it goes, what it costs, or why its parts do not fit together.

    Attributes:
        hidden: the width that makes the model fair; None where it was given.
        skipped: why the job cannot run.
    """

    job: Job
    folder: Path
    status: str | None = None
    cost: Cost | None = None
    tokens: int = 0
    steps: int = 0
    hidden: int | None = None
    skipped: str | None = None

    @property
    def flops(self) -> float:
        """FLOPs of the whole training: three forward passes' worth per token."""
        return 3 * self.cost.flops * self.tokens if self.cost else 0.0


def plan(all_overrides: Sequence[Sequence[str]], sweep: Path) -> list[Planned]:
    """Compose and check every job.

    Returns:
        One entry per list of overrides; the same object where two are the same job.

    Raises:
        UserError: a group, option, key, value or corpus of any job is wrong: the whole sweep is refused.
    """
    corpora, by_folder, planned = Corpora(), dict[Path, Planned](), list[Planned]()
    for overrides in all_overrides:
        entry = plan_one(job_of(overrides), sweep, corpora)
        known = by_folder.setdefault(entry.folder, entry)
        check_same_machine(known.job, entry.job)
        planned.append(known)
    return planned


def check_same_machine(one: Job, other: Job) -> None:
    """Refuse two jobs that differ in nothing but what all jobs of a sweep have in common.

    Raises:
        UserError: threads or compile, with both values.
    """
    for key in ("threads", "compile"):
        if one.config[key] != other.config[key]:
            raise UserError(
                f"{key}={one.config[key]} and {key}={other.config[key]} are the same job: all jobs of a "
                f"sweep have the same {key}; give each its own sweep_name"
            )


def plan_one(job: Job, sweep: Path, corpora: Corpora) -> Planned:
    """Check one job and name its folder."""
    try:
        ready = prepare(job, corpora=corpora)
    except MisfitError as error:
        # It has no folder: a corrected sweep finds nothing of it.
        return Planned(job, sweep / job_name(job.choices, job.config, ""), skipped=str(error))
    folder = sweep / job_name(job.choices, ready.identity, ready.data.digest)
    hidden = ready.matched.hidden if ready.matched else None
    steps = ready.config.trainer.max_steps
    return Planned(job, folder, status_of(folder), ready.cost, ready.training_tokens, steps, hidden)


def seconds_per_flop(entry: Planned, machine: Machine) -> float | None:
    """Training speed on this machine, measured on three steps of one job.

    None where the machine lacks the device that is asked for: the jobs may run elsewhere.
    """
    ready = prepare(entry.job, machine)
    cfg, module = ready.config, ready.module
    quiet_lightning()
    try:
        fabric = Fabric(accelerator=cfg.trainer.accelerator, devices=1, precision=cfg.trainer.precision)
    except (ValueError, RuntimeError, ImportError):
        return None
    fabric.to_device(module)
    optimizer = module.make_optimizer(module.model)
    before = torch.get_num_threads()
    torch.set_num_threads(cfg.threads)
    batches = iter(ready.data.train_dataloader())
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        with gradient_point(optimizer):
            with fabric.autocast():
                loss = module.training_step(fabric.to_device(next(batches)), 0)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    tokens = cfg.data.batch_size * cfg.model.block_size
    return min(seconds) / (3 * ready.cost.flops * tokens)
