"""One training, from a composed job to its result."""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig, OmegaConf, open_dict

from modgpt.config.build import build_model
from modgpt.config.check import check_arguments
from modgpt.config.compose import Job
from modgpt.config.match import match_size
from modgpt.data.base import DataModule
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.errors import TrainingError, UserError, as_user_errors
from modgpt.model.cost import count_parameters
from modgpt.model.gpt import GPT
from modgpt.runs.checkpoint import AtomicCheckpointIO
from modgpt.runs.files import replaced
from modgpt.runs.folder import claim_folder
from modgpt.runs.provenance import device_name, first_record, now, peak_memory
from modgpt.runs.record import Record
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
from modgpt.training.distributed import is_leader, tell_followers
from modgpt.training.hardware import best_compile, best_precision, has_compiler
from modgpt.training.lit_module import LitGPT
from modgpt.training.resume import Resumed, begin_from, check_resumable, find_resumed, find_started

AT_LEAST_ONE = (
    "threads",
    "trainer.max_steps",
    "trainer.val_check_interval",
    "trainer.log_every_n_steps",
    "trainer.accumulate_grad_batches",
)
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
    result: dict[str, Any]
    module: LitGPT
    data: DataModule


def train(job: Job, session: Session | None = None) -> Outcome:
    """Check everything, then train, validate and record.

    Args:
        job: what to train.
        session: where the caller has opened one. If it owns a folder, what an earlier start left there
            is gone on with; else the folder is a new one, or the one that `resume` names.

    Raises:
        UserError: the job cannot be trained as asked; nothing has been written.
        TrainingError: the training has failed, and says why.
        Interrupted: a signal stopped it.
    """
    if session is None:
        with Session(is_leader()) as session:
            return train(job, session)
    started = time.perf_counter()
    quiet_lightning()
    cfg = settle(job.config)
    planned = session.folder  # by a sweep
    resumed = find_resumed(cfg, session) if planned is None else find_started(planned)
    L.seed_everything(cfg.seed, verbose=False)
    torch.set_num_threads(cfg.threads)
    with as_user_errors():
        data: DataModule = instantiate(cfg.data, tokenizer=instantiate(cfg.tokenizer))
        tokenizer = data.load()
    settle_vocabulary(cfg, tokenizer)
    matched = match_size(cfg)
    if resumed:
        check_resumable(cfg, resumed, data.digest)
    module = build_module(cfg)
    if cfg.init_from is not None and not resumed:
        begin_from(Path(cfg.init_from), cfg, module.model)
    if cfg.compile:
        module.model.compile_blocks()
    essential = Essential(cfg, job.choices, module.model, data)
    trainer = build_trainer(cfg, essential)
    # All has been checked; from here on something is written.
    folder = session.folder or session.claim(partial(claim_folder, cfg, job.choices))
    content = first_record(job, cfg, module.model, data, resumed, matched)
    earlier = content["wall_seconds"]

    def ending() -> dict[str, Any]:
        return {
            "wall_seconds": earlier + time.perf_counter() - started,
            "tokens_seen": trainer.global_step * data.tokens_per_step(),
        }

    with session.recording(content, ending) as record:
        if is_leader():
            with replaced(folder / "config.yaml") as beside:
                OmegaConf.save(cfg, beside)
            tokenizer.save(folder / "tokenizer.json")
            if trainer.world_size > 1:
                tell_followers(job, cfg, folder)
        essential.attach(folder, record, session)
        attach(trainer, cfg, folder, resumed)
        fit(trainer, module, essential, resumed)
        record.update(status="finished", finished_at=now(), **ending(), **essential.measured(trainer))
        if is_leader():
            essential.last.checkpoint.with_name("previous.ckpt").unlink(missing_ok=True)
    return Outcome(folder, record.values, module, data)


def quiet_lightning() -> None:
    """Leave out Lightning's remarks about the devices there are, and its advice."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


def settle(config: DictConfig) -> DictConfig:
    """A copy in which everything that depends on the machine is decided, once and for the record.

    Raises:
        UserError: a value is of the wrong kind, or no budget of steps.
    """
    cfg = config.copy()
    with as_user_errors():
        OmegaConf.resolve(cfg)
    if cfg.trainer.get("precision") == "auto":
        cfg.trainer.precision = best_precision(cfg.trainer.get("accelerator", "auto"))
    if cfg.compile is None:
        cfg.compile = best_compile(cfg.trainer.get("accelerator", "auto"))
    elif cfg.compile is True and not has_compiler():
        raise UserError(
            "compile=true needs a C++ compiler, and there is no CXX, g++ or clang++: leave it out"
        )
    if cfg.threads is None:
        cfg.threads = torch.get_num_threads()
    for key in AT_LEAST_ONE:
        value = OmegaConf.select(cfg, key)
        if not isinstance(value, int) or value < 1:
            raise UserError(f"{key} must be a whole number of at least 1, got {value}")
    check_arguments(cfg)
    if cfg.seed < 0:
        raise UserError(f"seed must not be negative, got {cfg.seed}")
    return cfg


def settle_vocabulary(cfg: DictConfig, tokenizer: Tokenizer) -> None:
    """Make the vocabulary as large as the tokenizer's; one that is given may be larger.

    Raises:
        UserError: it is smaller.
    """
    if OmegaConf.is_missing(cfg.model, "vocab_size"):
        with open_dict(cfg):
            cfg.model.vocab_size = len(tokenizer)
    elif cfg.model.vocab_size < len(tokenizer):
        raise UserError(
            f"model.vocab_size={cfg.model.vocab_size} is less than the tokenizer's {len(tokenizer)}"
        )


def build_module(cfg: DictConfig) -> LitGPT:
    """The LightningModule, tried out: its parts meet in a forward pass, its optimizer is made.

    Raises:
        UserError: the parts do not fit together, or a value is out of its range.
    """
    model = build_model(cfg)
    with as_user_errors():
        optimizer, checked = instantiate(cfg.optimizer), instantiate(cfg.schedule)
        # Hydra's partials check what they call every time, which takes a third of a millisecond.
        schedule = partial(checked.func, *checked.args, **checked.keywords)
        schedule(0)
        optimizer(model)
        state = torch.get_rng_state()
        with torch.no_grad():
            model.eval()(torch.zeros(1, 2, dtype=torch.long))
        model.train()
        torch.set_rng_state(state)
    return LitGPT(model, optimizer, schedule)


class Essential:
    """The callbacks every run has, whatever its configuration."""

    def __init__(self, cfg: DictConfig, choices: dict[str, str], model: GPT, data: DataModule) -> None:
        self.stop, self.last = StopOnSignal(), LastStep()
        self.validations = Validations(cfg.trainer.val_check_interval)
        self.throughput, self.backend = Throughput(cfg.compile), AttentionBackend()
        self.logs, self.files = LogBeforeSaving(), AtomicCheckpointIO()
        self.data = data
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
            HyperParameters(
                choices
                | {key: OmegaConf.select(cfg, key) for key in COMPARED}
                | {"parameters": count_parameters(model)},
                self.validations,
            ),
            self.stop,
        ]

    def attach(self, folder: Path, record: Record, session: Session) -> None:
        """Give them the run's folder, record and session, once there are any."""
        self.logs.check = self.files.check = session.check
        self.stop.session = session
        self.stop.checkpoint = self.last.checkpoint = folder / "checkpoints" / "last.ckpt"
        self.validations.report = record.update

    def measured(self, trainer: L.Trainer) -> dict[str, Any]:
        """What is known once the training is over."""
        device = trainer.strategy.root_device
        return {
            "tokens_per_second": self.throughput.tokens_per_second,
            "peak_memory_bytes": peak_memory(device),
            "device": device_name(device),
            "attention_backend": self.backend.name,
        }


def build_trainer(cfg: DictConfig, essential: Essential) -> L.Trainer:
    """Lightning's Trainer with the configuration's callbacks; it gets its folder in `attach`.

    Raises:
        UserError: it refuses its arguments.
    """
    try:
        with as_user_errors():
            callbacks = [instantiate(node) for node in cfg.callbacks.values()]
            # Ours first: what they keep must be up to date when a checkpoint is written.
            return instantiate(
                cfg.trainer,
                callbacks=[*essential.callbacks, *callbacks],
                logger=False,
                plugins=[essential.files],
                enable_checkpointing=True,
                # Lightning counts batches here, we count steps everywhere.
                val_check_interval=cfg.trainer.val_check_interval * cfg.trainer.accumulate_grad_batches,
            )
    except InstantiationException as error:
        if isinstance(error.__cause__, MisconfigurationException | ImportError):
            raise UserError(f"trainer: {error.__cause__}") from error
        raise


def attach(trainer: L.Trainer, cfg: DictConfig, folder: Path, resumed: Resumed | None) -> None:
    """Point checkpoints, profiles and loggers to the run's folder."""
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = str(folder / "checkpoints")
        if getattr(callback, "folder", folder) is None:  # a callback of ours that writes files
            callback.folder = str(folder)  # pyright: ignore[reportAttributeAccessIssue]
    step = resumed.step if resumed else None
    trainer.loggers = [
        instantiate(node, save_dir=str(folder), resume_step=step) for node in cfg.logger.values()
    ]


def fit(trainer: L.Trainer, module: LitGPT, essential: Essential, resumed: Resumed | None) -> None:
    """Train to the last step, and see to it that the final model has been validated."""
    checkpoint = str(resumed.checkpoint) if resumed else None
    data = essential.data
    with warnings.catch_warnings():
        # Advice for loading from disk; here a batch is one look-up in a tensor in memory.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*is deprecated.*", module="lightning")
        # The metrics do so themselves.
        warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
        # A resumed run goes on in its own folder: that there are checkpoints is the point.
        warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
        try:
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except (OSError, TrainingError):
            raise
        except Exception as error:
            if checkpoint is None or essential.stop.began:
                raise
            reason = str(error).strip().split("\n")[0]
            raise TrainingError(
                f"{checkpoint} cannot be gone on from: {type(error).__name__}: {reason}"
            ) from error
        if essential.validations.losses.get("final_step") != trainer.global_step:
            # Killed between the last step and its validation: the resumed run has nothing to train.
            trainer.validate(module, datamodule=data, verbose=False)
            best = essential.last.checkpoint.with_name("best.ckpt")
            if (
                is_leader()
                and best.exists()
                and essential.validations.losses["best_step"] == trainer.global_step
            ):
                with replaced(best) as beside:
                    shutil.copyfile(essential.last.checkpoint, beside)
