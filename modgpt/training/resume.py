"""Going on with a run: where it stopped, and what may not change."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from modgpt.config.keys import LATER, PARTS, SEEDS
from modgpt.config.trust import read_config
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.errors import TrainingError, UserError
from modgpt.runs.checkpoint import has_checkpoint, latest_checkpoint, model_weights
from modgpt.runs.folder import check_weights, tokenizer_in
from modgpt.runs.record import RunRecord, read_record
from modgpt.runs.saved import differences
from modgpt.runs.session import Session
from modgpt.training.callbacks.resuming import StopOnSignal
from modgpt.training.distributed import is_leader
from modgpt.training.techniques import tail_start

log = logging.getLogger(__name__)


@dataclass
class Resumed:
    """Where an earlier start of the run left off."""

    folder: Path
    checkpoint: Path
    step: int
    record: RunRecord
    tokenizer: Tokenizer  # the checkpoint's: its text or its file may have changed


def find_resumed(cfg: DictConfig, session: Session) -> Resumed | None:
    """What `resume` names, which the session then owns; None where it names nothing.

    Raises:
        UserError: no run there, another process works on it, no checkpoint, or one that is already at
            the end of the budget.
    """
    if cfg.resume is None:
        return None
    folder = Path(cfg.resume)
    read_record(folder)  # it is a run: so its folder may be owned
    session.take(folder)
    record = read_record(folder)
    checkpoint, content = latest_checkpoint(folder)
    check_architecture(cfg, folder)
    check_weights(cfg, model_weights(content), checkpoint)  # before a model of any size is built
    step = content["global_step"]
    if cfg.max_bytes is None:  # else the number of steps is known with the text
        check_steps(cfg, folder, step, record)
    return Resumed(folder, checkpoint, step, record, tokenizer_in(content, checkpoint))


def check_steps(cfg: DictConfig, folder: Path, step: int, record: RunRecord) -> None:
    """Refuse to go on with a run that is at the end of its budget.

    Raises:
        UserError: no step is left.
    """
    ended = record.status in ("finished", "partial")
    if step > cfg.trainer.max_steps or (step == cfg.trainer.max_steps and ended):
        larger = f"trainer.max_steps={2 * step}"
        if cfg.max_bytes is not None:
            larger = f"max_bytes={2 * cfg.max_bytes}"
        raise UserError(
            f"{folder} is already at step {step} of trainer.max_steps={cfg.trainer.max_steps}: "
            f"to go on, give a larger one, such as {larger}"
        )


def find_started(folder: Path) -> Resumed | None:
    """What an earlier start left in a job's folder; None for a new beginning.

    What nothing can go on from is removed: the metrics of a start that was killed before its first
    checkpoint, checkpoints that are all damaged or have no readable record beside them.
    """
    if has_checkpoint(folder):
        try:
            checkpoint, content = latest_checkpoint(folder)
            tokenizer = tokenizer_in(content, checkpoint)
            return Resumed(folder, checkpoint, content["global_step"], read_record(folder), tokenizer)
        except UserError as error:
            log.warning(f"{error}; the job begins anew")
    if is_leader():
        left = ("metrics.csv", "validation.npz", "events.out.tfevents.*", "checkpoints/*.ckpt")
        for file in (file for pattern in left for file in folder.glob(pattern)):
            file.unlink(missing_ok=True)
    return None


@contextmanager
def config_of(resumed: Resumed | None) -> Iterator[None]:
    """Report whatever breaks while a saved configuration is prepared as damage of its file.

    Raises:
        UserError: names the file and what broke.
    """
    try:
        yield
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if resumed is None:
            raise
        raise UserError(f"{resumed.folder / 'config.yaml'} is damaged: {in_short(error)}") from error


@contextmanager
def state_of(resumed: Resumed | None, stop: StopOnSignal) -> Iterator[None]:
    """Report whatever breaks before the first step of a resumed run as damage of its checkpoint.

    Raises:
        TrainingError: names the file and what broke.
    """
    try:
        yield
    except (OSError, TrainingError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if resumed is None or stop.began:
            raise
        raise TrainingError(f"cannot go on from {resumed.checkpoint}: {in_short(error)}") from error


def in_short(error: Exception) -> str:
    """An error in one line: its type, and the beginning of its message."""
    return f"{type(error).__name__}: {str(error).strip()[:200]}"


def check_resumable(cfg: DictConfig, resumed: Resumed, digest: str) -> None:
    """Refuse to load weights into another architecture, or to go on with other data.

    Raises:
        UserError: names the key that differs, with both values.
    """
    saved = check_architecture(cfg, resumed.folder)
    if cfg.resume is not None:
        check_steps(cfg, resumed.folder, resumed.step, resumed.record)
    for key in SEEDS:
        before, after = OmegaConf.select(saved, key), OmegaConf.select(cfg, key)
        if before != after:
            raise UserError(f"a resumed run keeps {key}: it was {before}, not {after}; start a new run")
    for key in ("trainer.limit_val_batches", "data.val_share"):
        before, after = OmegaConf.select(saved, key), OmegaConf.select(cfg, key)
        if before != after:
            raise UserError(
                "a resumed run keeps its validation batches, or its best loss would compare different "
                f"ones: {key} was {before}, not {after}"
            )
    check_average(saved, cfg, resumed)
    if resumed.record.corpus_sha256 not in (None, digest):
        raise UserError(
            f"a resumed run keeps its corpus: {resumed.folder} was trained on SHA-256 "
            f"{resumed.record.corpus_sha256}, this one has {digest}"
        )


def check_average(saved: DictConfig, cfg: DictConfig, resumed: Resumed) -> None:
    """Refuse another average of the weights than the run's, and one that should have begun already.

    Raises:
        UserError: says which key decides it, with its value.
    """
    for key in ("ema", "tail_average"):
        before, after = OmegaConf.select(saved, key, default=LATER[key]), cfg[key]
        if before != after:
            raise UserError(
                f"a resumed run keeps its average of the weights: {key} was {before}, not {after}; "
                "start a new run for another one"
            )
    if not cfg.tail_average:
        return
    before, after = (tail_start(cfg.tail_average, c.trainer.max_steps) for c in (saved, cfg))
    if before != after < resumed.step:
        raise UserError(
            f"tail_average={cfg.tail_average} of trainer.max_steps={cfg.trainer.max_steps} begins after "
            f"step {after}, and the run is at step {resumed.step}, with an average that was to begin "
            f"after step {before}: give a larger trainer.max_steps"
        )


def check_architecture(cfg: DictConfig, folder: Path) -> DictConfig:
    """The saved configuration of a run, whose architecture and tokenizer a resumed one has too.

    Raises:
        UserError: names the key that differs, with both values.
    """
    saved = read_config(folder / "config.yaml", to_build=False)
    for key, before, after in differences(saved, cfg, (*PARTS, "model", "tokenizer")):
        raise UserError(
            f"a resumed run keeps its architecture: {key} was {before}, not {after}; start a new run "
            "for another one"
        )
    return saved
