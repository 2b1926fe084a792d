"""Before the first job: what will run, does each job fit together, what will it cost."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.table import Table

from modgpt.composition import Job, compose_job
from modgpt.cost import Cost, cost_of
from modgpt.data.datamodule import CorpusDataModule
from modgpt.errors import UserError, as_user_errors
from modgpt.files import write_json
from modgpt.lit_module import LitGPT
from modgpt.sweep.identity import job_name
from modgpt.sweep.lease import locked
from modgpt.sweep.worker import status
from modgpt.training import build_module, settle


@dataclass
class Planned:
    """One job: where it goes, what it costs, or why its parts do not fit together."""

    job: Job
    folder: Path
    status: str | None
    cost: Cost | None = None
    tokens: int = 0
    skipped: str | None = None

    @property
    def flops(self) -> float:
        """FLOPs of the whole training: three forward passes' worth per token."""
        return 3 * self.cost.flops * self.tokens if self.cost else 0.0


class Corpora:
    """The data of a sweep's jobs, each corpus loaded once."""

    def __init__(self) -> None:
        self.loaded: dict[str, CorpusDataModule] = {}

    def of(self, cfg: DictConfig) -> CorpusDataModule:
        key = OmegaConf.to_yaml(OmegaConf.create([cfg.data, cfg.tokenizer]))
        if key not in self.loaded:
            with as_user_errors():
                data = instantiate(cfg.data, tokenizer=instantiate(cfg.tokenizer))
                data.load()
            self.loaded[key] = data
        return self.loaded[key]


def plan(all_overrides: Sequence[Sequence[str]], sweep: Path) -> list[Planned]:
    """Compose and check every job; jobs that are the same job are planned once.

    Raises:
        UserError: a group, option, key, value or corpus of any job is wrong: the whole sweep is refused.
    """
    corpora, planned = Corpora(), dict[Path, Planned]()
    for overrides in all_overrides:
        job = compose_job(overrides)
        cfg = settle(job.config)
        data = corpora.of(cfg)
        folder = sweep / job_name(job, data.digest)
        if folder in planned:
            continue
        entry = Planned(job, folder, status(folder))
        with open_dict(cfg):
            cfg.model.vocab_size = len(data.tokenizer)
        try:
            model = build_module(cfg).model
        except UserError as error:
            entry.skipped = str(error)
        else:
            entry.cost = cost_of(model, cfg.model.block_size)
            windows = cfg.data.batch_size * cfg.trainer.accumulate_grad_batches
            entry.tokens = windows * cfg.model.block_size * cfg.trainer.max_steps
        planned[folder] = entry
    return list(planned.values())


def record_skipped(entry: Planned) -> None:
    """Leave a record of a job whose parts do not fit together, for the comparison to list."""
    entry.folder.mkdir(parents=True, exist_ok=True)
    write_json(
        entry.folder / "result.json",
        {
            "status": "skipped",
            "reason": entry.skipped,
            "choices": entry.job.choices,
            "overrides": entry.job.overrides,
            "seed": entry.job.config.seed,
        },
    )


def seconds_per_flop(entry: Planned, threads: int) -> float:
    """Training speed on this machine, measured on three steps of one job."""
    cfg = settle(entry.job.config)
    data = Corpora().of(cfg)
    with open_dict(cfg):
        cfg.model.vocab_size = len(data.tokenizer)
    module: LitGPT = build_module(cfg)
    optimizer = module.make_optimizer(module.model)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    batches = iter(data.train_dataloader())
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        module.training_step(next(batches), 0).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    assert entry.cost is not None
    tokens = cfg.data.batch_size * cfg.model.block_size
    return min(seconds) / (3 * entry.cost.flops * tokens)


def plan_table(planned: Sequence[Planned], per_flop: float | None) -> Table:
    """What will run, for a person to read before it does."""
    table = Table(title="jobs of this sweep", header_style="bold")
    for name in ("job", "status", "parameters", "active", "FLOPs/token", "estimate"):
        table.add_column(name, justify="left" if name in ("job", "status") else "right", overflow="fold")
    for entry in planned:
        if entry.skipped is not None or entry.cost is None:
            table.add_row(entry.folder.name, f"SKIPPED: {entry.skipped}", *[""] * 4, style="dim")
            continue
        estimate = (
            "" if per_flop is None or entry.status == "finished" else f"{entry.flops * per_flop:,.0f} s"
        )
        cost = entry.cost
        numbers = [f"{cost.parameters:,}", f"{cost.active_parameters:,}", f"{cost.flops:,.0f}"]
        table.add_row(entry.folder.name, entry.status or "new", *numbers, estimate)
    return table


def read_settings(sweep: Path) -> dict[str, Any] | None:
    """What the sweep has decided for all its jobs; None before it began."""
    try:
        return json.loads((sweep / "sweep.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def keep_settings(sweep: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Decide for all jobs of the sweep, unless another process has already."""
    sweep.mkdir(parents=True, exist_ok=True)
    with locked(sweep / ".lock"):
        decided = read_settings(sweep)
        if decided is None:
            write_json(sweep / "sweep.json", wanted)
        return decided or wanted
