"""Lightning's Trainer: which of its arguments a run takes, and what part of the training was done.

Every argument of `lightning.Trainer` is honoured with Lightning's meaning, or refused in one line. What
cuts a training or its validation short is honoured, and the result is recorded as partial.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from omegaconf import DictConfig, OmegaConf

from modgpt.errors import UserError, as_user_errors
from modgpt.training.checkpoint_io import AtomicCheckpointIO

ENDLESS = "the data are one endless epoch, and trainer.max_steps is the budget"
# Arguments that take no other values than these, or null, and the reason. Lightning tells 1 from 1.0.
FIXED: dict[str, tuple[str, str]] = {
    "max_epochs": ("-1", ENDLESS),
    "min_epochs": ("", f"{ENDLESS}; trainer.min_steps counts steps"),
    "check_val_every_n_epoch": ("", f"{ENDLESS}; trainer.val_check_interval counts steps"),
    "reload_dataloaders_every_n_epochs": ("0", ENDLESS),
    "limit_train_batches": ("1.0", ENDLESS),
    "limit_test_batches": ("1.0", "there is no test split; trainer.limit_val_batches limits validation"),
    "limit_predict_batches": ("1.0", "training predicts nothing"),
    "overfit_batches": (
        "0 0.0",
        "to overfit, train on a short text: data=text data.path=FILE",
    ),
    "fast_dev_run": ("False 0", "for a quick try: trainer.max_steps=2 trainer.limit_val_batches=1"),
    "num_sanity_val_steps": ("0", "the model is tried out before the run's folder exists"),
    "barebones": ("False 0", "a run keeps its record; logger=none callbacks=none leave out the rest"),
    "logger": ("", "the group logger sets the loggers"),
    "callbacks": ("", "the group callbacks sets the callbacks"),
    "plugins": ("", "checkpoints are written by a plugin of modgpt"),
    "profiler": ("", "callbacks=profiler records a profile"),
    "enable_checkpointing": (
        "True",
        "callbacks.best=null callbacks.last=null leave some out",
    ),
    "use_distributed_sampler": ("False 0", "the data give each process its share"),
    "default_root_dir": ("", "output_dir is the folder of the runs"),
    "model_registry": ("", "a run's models are in its folder"),
}
STRATEGIES = (
    *("auto", "ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true"),
    "single_device",
)


def check_trainer(cfg: DictConfig) -> None:
    """Refuse arguments of the Trainer that would be ignored, or would give a result of another kind.

    Raises:
        UserError: one of them, with its value and what would work.
    """
    trainer = cfg.trainer
    for name, (allowed, reason) in FIXED.items():
        value = trainer.get(name)
        if value is not None and str(value) not in allowed.split():
            raise UserError(f"trainer.{name}={value} is not supported: {reason}")
    clip = trainer.get("gradient_clip_val")
    if clip is not None and not clip >= 0:
        raise UserError(f"trainer.gradient_clip_val must not be negative, got {clip}; 0 turns it off")
    strategy = trainer.get("strategy")
    if isinstance(strategy, str) and strategy not in STRATEGIES:
        raise UserError(
            f"trainer.strategy={strategy} is not supported: it must be one of {', '.join(STRATEGIES)}"
        )
    min_steps = trainer.get("min_steps")
    if min_steps is not None and min_steps > trainer.max_steps:
        raise UserError(
            f"trainer.min_steps={min_steps} must not be above trainer.max_steps={trainer.max_steps}"
        )
    with errors_of("trainer.max_time"):
        if time_is_up(Timer(plain(trainer.get("max_time")))):
            raise UserError(f"trainer.max_time={trainer.max_time} leaves no time to train")
    limit = trainer.get("limit_val_batches")
    if limit is not None and (limit <= 0 or (limit > 1 and limit != int(limit))):
        raise UserError(
            f"trainer.limit_val_batches must be a number of batches, or a share above 0, got {limit}: "
            "every run is validated"
        )


def plain(value: Any) -> Any:
    """A value of a configuration without OmegaConf's containers."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def validated_batches(cfg: DictConfig, batches: int) -> int:
    """How many of the validation batches are used, as `trainer.limit_val_batches` says.

    A float of at most 1.0 is a share, anything else is a number of batches; null is all of them.

    Raises:
        UserError: none of them.
    """
    limit = cfg.trainer.get("limit_val_batches")
    if limit is None:
        return batches
    used = int(limit * batches) if isinstance(limit, float) and limit <= 1 else min(int(limit), batches)
    if used < 1:
        raise UserError(
            f"trainer.limit_val_batches={limit} of {batches} validation batches is none: "
            f"give at least {math.ceil(1000 / batches) / 1000:g}"
        )
    return used


def build_trainer(
    cfg: DictConfig, essential: list[Callback], files: AtomicCheckpointIO, **other: Any
) -> L.Trainer:
    """Lightning's Trainer with the callbacks of the configuration; `attach` gives it its folder.

    Args:
        cfg: resolved.
        essential: the callbacks every run has.
        files: how checkpoints are read and written.
        other: arguments of the Trainer, in place of those that a run has.

    Raises:
        UserError: the Trainer or a callback refuses its arguments.
    """
    callbacks = build_callbacks(cfg.callbacks)
    arguments: dict[str, Any] = {
        # The essential ones first: what they keep must be up to date when a checkpoint is written.
        "callbacks": [*essential, *callbacks],
        "logger": False,
        "plugins": [files],
        "enable_checkpointing": True,
        # Lightning counts batches here; a run counts steps everywhere.
        "val_check_interval": cfg.trainer.val_check_interval * cfg.trainer.accumulate_grad_batches,
        # With min_steps Lightning would wait for the end of the first epoch, which has none.
        "min_epochs": 0,
        # As in `FIXED`, also where they are null or deleted: Lightning's own defaults differ.
        "max_epochs": -1,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "overfit_batches": 0.0,
        "use_distributed_sampler": False,
    }
    with errors_of("trainer"):
        return instantiate(cfg.trainer, **(arguments | other), _convert_="all")


def build_callbacks(nodes: DictConfig) -> list[Callback]:
    """The callbacks of the group; null switches one off.

    Raises:
        UserError: an entry is no callback of Lightning, or refuses its arguments.
    """
    callbacks = []
    for name, node in nodes.items():
        if node is None:
            continue
        with errors_of(f"callbacks.{name}"):
            callback = instantiate(node)
        if not isinstance(callback, Callback):
            raise UserError(
                f"callbacks.{name} must be a callback of Lightning, with a _target_, got "
                f"{type(callback).__name__}"
            )
        folder = getattr(callback, "dirpath", None)
        if folder is not None and (not folder or not isinstance(folder, str | os.PathLike)):
            # Lightning checks a folder only when it writes, and 0 not even then.
            raise UserError(f"callbacks.{name}.dirpath must be a folder or null, got {folder!r}")
        callbacks.append(callback)
    return callbacks


@contextmanager
def errors_of(name: str) -> Iterator[None]:
    """Turn what Lightning refuses, and packages that are missing, into a `UserError` of that name."""
    try:
        with as_user_errors():
            yield
    except (InstantiationException, MisconfigurationException, ImportError) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(cause, MisconfigurationException | ImportError):
            raise
        raise UserError(f"{name}: {cause}") from error


def partial_reason(cfg: DictConfig, trainer: L.Trainer, batches: int) -> str | None:
    """Why the result of a training is partial; None where it is complete.

    A training that early stopping has ended is complete: it is the whole result of that rule.

    Args:
        cfg: resolved.
        trainer: after the training.
        batches: validation batches of the data.
    """
    reasons = []
    if trainer.global_step < cfg.trainer.max_steps and early_stop(cfg, trainer) is None:
        by = "the time limit was reached" if out_of_time(trainer) else "a callback ended the training"
        reasons.append(f"step {trainer.global_step} of trainer.max_steps={cfg.trainer.max_steps}: {by}")
    used = validated_batches(cfg, batches)
    if used < batches:
        reasons.append(
            f"validated on the first {used} of {batches} batches: trainer.limit_val_batches="
            f"{cfg.trainer.limit_val_batches}"
        )
    return "; ".join(reasons) or None


def early_stop(cfg: DictConfig, trainer: L.Trainer) -> str | None:
    """What early stopping says of the end of a training; None where something else ended it."""
    if trainer.global_step >= cfg.trainer.max_steps or out_of_time(trainer):
        return None
    for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
        if (
            isinstance(callback, EarlyStopping)
            and callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED
        ):
            why = str(callback.stopping_reason_message).removesuffix(" Signaling Trainer to stop.")
            return f"stopped early at step {trainer.global_step}: {why}"
    return None


def out_of_time(trainer: L.Trainer) -> bool:
    """Whether `trainer.max_time` is over."""
    timers = [c for c in trainer.callbacks if isinstance(c, Timer)]  # pyright: ignore
    return any(time_is_up(timer) for timer in timers)


def time_is_up(timer: Timer) -> bool:
    """Whether a timer has a limit, and it is reached."""
    remaining = timer.time_remaining()
    return remaining is not None and remaining <= 0
