"""One training, from a composed job to its record."""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig, OmegaConf

from modgpt.config.compose import Job
from modgpt.data.base import DataModule
from modgpt.errors import UserError
from modgpt.files import replaced
from modgpt.model.cost import count_parameters
from modgpt.model.gpt import GPT
from modgpt.runs.folder import claim_folder
from modgpt.runs.provenance import device_name, now, peak_memory
from modgpt.runs.record import RecordFile, RunRecord, read_record
from modgpt.runs.session import Session
from modgpt.training.callbacks.measuring import (
    AttentionBackend,
    HyperParameters,
    Throughput,
    Validations,
)
from modgpt.training.callbacks.resuming import (
    LastStep,
    LogBeforeSaving,
    RandomState,
    SelfContained,
    StopOnSignal,
)
from modgpt.training.checkpoint_io import AtomicCheckpointIO
from modgpt.training.distributed import is_leader, tell_followers
from modgpt.training.first_record import first_record
from modgpt.training.hardware import Machine
from modgpt.training.lit_module import LitGPT
from modgpt.training.loggers import build_loggers
from modgpt.training.memory import out_of_memory_told
from modgpt.training.prepare import prepare
from modgpt.training.resume import (
    Resumed,
    check_resumable,
    config_of,
    find_resumed,
    find_started,
    state_of,
)
from modgpt.training.trackers.tracking import begin_trackers, end_trackers
from modgpt.training.trainer import build_trainer, early_stop, partial_reason

# What TensorBoard's HParams compare runs by, besides the choices: the same in every run, for its columns
# come from any one of them.
COMPARED = (
    *("seed", "optimizer.lr", "model.d_model", "model.n_layers", "model.n_heads", "model.block_size"),
    *("data.batch_size", "trainer.max_steps"),
)


@dataclass
class Outcome:
    """A finished training: its folder, its record, and the trained module."""

    folder: Path
    record: RunRecord
    module: LitGPT
    data: DataModule


def train(job: Job, session: Session | None = None, machine: Machine | None = None) -> Outcome:
    """Prepare everything, then train, validate and record.

    Args:
        job: what to train.
        session: where the caller has opened one. If it owns a folder, the training goes on with what an
            earlier start left there; else the folder is a new one, or the one that `resume` names.
        machine: threads, precision and compiling, where a sweep has decided them.

    Raises:
        UserError: the job cannot be trained as asked; nothing has been written.
        TrainingError: the training has failed, and says why.
        Interrupted: a signal stopped it.
    """
    if session is None:
        with Session(is_leader()) as session:
            return train(job, session, machine)
    started = time.perf_counter()
    quiet_lightning()
    planned = session.folder  # by a sweep
    resumed = find_resumed(job.config, session) if planned is None else find_started(planned)
    with config_of(resumed):
        prepared = prepare(job, machine, tokenizer=resumed.tokenizer if resumed else None)
    cfg, data, module = prepared.config, prepared.data, prepared.module
    if resumed:
        check_resumable(cfg, resumed, data.digest)
    L.seed_everything(cfg.seed, verbose=False)
    torch.set_num_threads(cfg.threads)
    if cfg.compile:
        module.model.compile_blocks()
    essential = Essential(cfg, job.choices, module.model, data)
    trainer = build_trainer(cfg, essential.callbacks, essential.files)
    # All has been checked; from here on something is written.
    folder = session.folder or session.claim(partial(claim_folder, cfg, job.choices))
    first = first_record(prepared, resumed)

    def ending() -> dict[str, Any]:
        return {
            "wall_seconds": first.wall_seconds + time.perf_counter() - started,
            "tokens_seen": data.tokens_seen(),
            "skipped_steps": module.spikes.skipped if module.spikes else first.skipped_steps,
        }

    with ended_trackers(trainer, folder), session.recording(first, ending) as record:
        if is_leader():
            with replaced(folder / "config.yaml") as beside:
                OmegaConf.save(cfg, beside)
            data.tokenizer.save(folder / "tokenizer.json")
            if trainer.world_size > 1:
                tell_followers(job, prepared.machine, folder)
        essential.attach(folder, record, session)
        attach(trainer, cfg, folder, resumed, essential.parameters)
        with state_of(resumed, essential.stop):
            fit(trainer, module, essential, resumed)
        if module.average is not None:
            module.average.show()  # the result of the training
        cut = partial_reason(cfg, trainer, len(data.val_dataloader()))
        record.update(
            status="partial" if cut else "finished",
            reason=cut or early_stop(cfg, trainer),
            finished_at=now(),
            **ending(),
            **essential.measured(trainer),
        )
        if is_leader():
            essential.last.checkpoint.with_name("previous.ckpt").unlink(missing_ok=True)
    return Outcome(folder, record.record, module, data)


def quiet_lightning() -> None:
    """Leave out Lightning's remarks about the devices there are, and its advice."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


class Essential:
    """The callbacks every run has, whatever its configuration."""

    def __init__(self, cfg: DictConfig, choices: dict[str, str], model: GPT, data: DataModule) -> None:
        self.stop, self.last = StopOnSignal(), LastStep()
        self.validations = Validations(cfg.trainer.val_check_interval)
        self.throughput, self.backend = Throughput(cfg.compile), AttentionBackend()
        self.logs, self.files = LogBeforeSaving(), AtomicCheckpointIO()
        self.data = data
        self.parameters = (
            choices
            | {key: OmegaConf.select(cfg, key) for key in COMPARED}
            | {"parameters": count_parameters(model)}
        )
        content = {
            "config": OmegaConf.to_container(cfg, resolve=True),
            "tokenizer": data.tokenizer.to_dict(),
        }
        self.callbacks: list[Callback] = [
            RandomState(),
            self.last,
            self.throughput,
            self.logs,
            self.backend,
            SelfContained(content),
            self.validations,
            HyperParameters(self.parameters, self.validations),
            self.stop,
        ]

    def attach(self, folder: Path, record: RecordFile, session: Session) -> None:
        """Give them the run's folder, record and session, once there are any."""
        self.logs.check = self.files.check = session.check
        self.stop.session = session
        self.stop.checkpoint = self.last.checkpoint = folder / "checkpoints" / "last.ckpt"
        self.validations.report, self.validations.keep = record.update, record.keep

    def measured(self, trainer: L.Trainer) -> dict[str, Any]:
        """What is known once the training is over."""
        device = trainer.strategy.root_device
        return {
            "tokens_per_second": self.throughput.tokens_per_second,
            "peak_memory_bytes": peak_memory(device),
            "device": device_name(device),
            "attention_backend": self.backend.name,
        }


def attach(
    trainer: L.Trainer,
    cfg: DictConfig,
    folder: Path,
    resumed: Resumed | None,
    parameters: dict[str, Any],
) -> None:
    """Point checkpoints, profiles and loggers to the run's folder, and begin with the trackers."""
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder / "checkpoints")
        if getattr(callback, "folder", folder) is None:  # a callback of ours that writes files
            callback.folder = str(folder)  # pyright: ignore[reportAttributeAccessIssue]
    loggers = build_loggers(cfg.logger, folder, resumed.step if resumed else None)
    trainer.loggers = begin_trackers(loggers, folder, parameters)


@contextmanager
def ended_trackers(trainer: L.Trainer, folder: Path) -> Iterator[None]:
    """Tell the trackers how the run has ended, once its record says so."""
    try:
        yield
    finally:
        with suppress(UserError):  # no readable record: the error that led to it is told
            end_trackers(trainer.loggers, folder, read_record(folder))


@contextmanager
def without_advice() -> Iterator[None]:
    """Leave out Lightning's warnings about what is meant to be so."""
    with warnings.catch_warnings():
        # Advice for loading from disk; here a batch is one look-up in a tensor in memory.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*is deprecated.*", module="lightning")
        # The metrics do so themselves.
        warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
        # A resumed run goes on in its own folder: that there are checkpoints is the point.
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        yield


def fit(trainer: L.Trainer, module: LitGPT, essential: Essential, resumed: Resumed | None) -> None:
    """Train to the last step, and see to it that the final model has been validated."""
    checkpoint = str(resumed.checkpoint) if resumed else None
    data = essential.data
    with without_advice():
        with out_of_memory_told(data.batch_size):
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        validated = essential.validations.complete
        if essential.validations.losses.get("final_step") != trainer.global_step or not validated:
            # Ended before its last step, or killed between that and its validation.
            trainer.validate(module, datamodule=data, verbose=False)
            best = essential.last.checkpoint.with_name("best.ckpt")
            if (
                is_leader()
                and best.exists()
                and essential.validations.losses["best_step"] == trainer.global_step
            ):
                with replaced(best) as beside:
                    shutil.copyfile(essential.last.checkpoint, beside)
