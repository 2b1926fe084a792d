"""Before the first job: what will run, does each job fit together, what will it cost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra.utils import instantiate
from lightning.fabric import Fabric
from omegaconf import DictConfig, OmegaConf

from modgpt.config.compose import Job, compose_job
from modgpt.config.match import Matched, cost_at, match_size
from modgpt.data.base import DataModule
from modgpt.errors import UserError, as_user_errors
from modgpt.model.cost import Cost
from modgpt.runs.files import write_json
from modgpt.sweep.identity import job_name
from modgpt.sweep.job import status
from modgpt.training.loop import build_module, quiet_lightning, settle, settle_vocabulary
from modgpt.training.resume import begin_from


@dataclass(eq=False)
class Planned:
    """One job: where it goes, what it costs, or why its parts do not fit together."""

    job: Job
    folder: Path
    status: str | None
    cost: Cost | None = None
    tokens: int = 0
    matched: Matched | None = None
    skipped: str | None = None

    @property
    def flops(self) -> float:
        """FLOPs of the whole training: three forward passes' worth per token."""
        return 3 * self.cost.flops * self.tokens if self.cost else 0.0


class Corpora:
    """The data of a sweep's jobs, each corpus loaded once."""

    def __init__(self) -> None:
        self.loaded: dict[str, DataModule] = {}

    def of(self, cfg: DictConfig) -> DataModule:
        key = OmegaConf.to_yaml(OmegaConf.create([cfg.data, cfg.tokenizer]))
        if key not in self.loaded:
            with as_user_errors():
                data = instantiate(cfg.data, tokenizer=instantiate(cfg.tokenizer))
                data.load()
            self.loaded[key] = data
        return self.loaded[key]


def plan(all_overrides: Sequence[Sequence[str]], sweep: Path) -> list[Planned]:
    """Compose and check every job.

    Returns:
        One entry per list of overrides; the same object where two are the same job.

    Raises:
        UserError: a group, option, key, value or corpus of any job is wrong: the whole sweep is refused.
    """
    corpora, by_folder, planned = Corpora(), dict[Path, Planned](), list[Planned]()
    for overrides in all_overrides:
        job = compose_job(overrides)
        cfg = settle(job.config)
        data = corpora.of(cfg)
        settle_vocabulary(cfg, data.tokenizer)
        cost = matched = skipped = None
        try:
            matched = match_size(cfg)
            module = build_module(cfg)
            if cfg.init_from is not None:
                begin_from(Path(cfg.init_from), cfg, module.model)
            cost = cost_at(cfg)
        except UserError as error:
            skipped = str(error)
        identity = job.config.copy()  # not the settled one: what a machine decides is no part of it
        if matched is not None:
            identity.ffn.hidden = matched.hidden
        folder = sweep / job_name(job.choices, identity, data.digest)
        if folder not in by_folder:
            windows = cfg.data.batch_size * cfg.trainer.accumulate_grad_batches
            tokens = windows * cfg.model.block_size * cfg.trainer.max_steps
            by_folder[folder] = Planned(job, folder, status(folder), cost, tokens, matched, skipped)
        planned.append(by_folder[folder])
    return planned


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


def seconds_per_flop(entry: Planned, threads: int) -> float | None:
    """Training speed on this machine, measured on three steps of one job.

    None where the machine lacks the device that is asked for: the jobs may run elsewhere.
    """
    cfg = settle(entry.job.config)
    data = Corpora().of(cfg)
    settle_vocabulary(cfg, data.tokenizer)
    match_size(cfg)
    quiet_lightning()
    try:
        fabric = Fabric(accelerator=cfg.trainer.accelerator, devices=1, precision=cfg.trainer.precision)
    except (ValueError, RuntimeError, ImportError):
        return None
    module = build_module(cfg)
    fabric.to_device(module)
    optimizer = module.make_optimizer(module.model)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    batches = iter(data.train_dataloader())
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        with fabric.autocast():
            loss = module.training_step(fabric.to_device(next(batches)), 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    torch.set_num_threads(before)
    assert entry.cost is not None
    tokens = cfg.data.batch_size * cfg.model.block_size
    return min(seconds) / (3 * entry.cost.flops * tokens)
