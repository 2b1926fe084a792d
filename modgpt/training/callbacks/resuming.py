"""Callbacks that every run has: they make it resumable from any step."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from modgpt.runs.session import Interrupted, Session, leave_terminal

if TYPE_CHECKING:
    from modgpt.training.lit_module import LitGPT


class RandomState(Callback):
    """Keeps the random generators in the checkpoint, so that dropout goes on as if never interrupted.

    Lightning restores everything but them. The states are byte tensors: plain types.
    """

    def __init__(self) -> None:
        self.restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        states = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            states["cuda"] = torch.cuda.get_rng_state()
        if torch.backends.mps.is_available():
            states["mps"] = torch.mps.get_rng_state()
        return states

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.restored = state_dict

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Only now: setting up the training draws random numbers of its own.
        if trainer.global_rank > 0:
            # The checkpoint has the first process's; the same ones would drop the same elements.
            torch.manual_seed(hash((torch.initial_seed(), trainer.global_rank, trainer.global_step)))
            return
        if self.restored is None:
            return
        torch.set_rng_state(self.restored["cpu"])
        if "cuda" in self.restored and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.restored["cuda"])
        if "mps" in self.restored and torch.backends.mps.is_available():
            torch.mps.set_rng_state(self.restored["mps"])


class LogBeforeSaving(Callback):
    """Logs each step before a checkpoint of it can be written, and sends what is logged to the disk.

    So a run that is killed at any moment has logged every step that its last checkpoint counts as done.
    The LightningModule's own hook would be too late: it comes after those of the callbacks that save.

    Attributes:
        check: called before anything is logged; raises if this process no longer owns the run's folder.
    """

    def __init__(self) -> None:
        self.check: Callable[[], None] = lambda: None

    def check_owner(self, trainer: L.Trainer) -> None:
        try:
            self.check()
        except BaseException:
            trainer.loggers = []  # at the end they would write what they still hold
            raise

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: LitGPT, *_: Any) -> None:
        if pl_module.logs_now():
            self.check_owner(trainer)
        pl_module.log_step()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.check_owner(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
        for logger in trainer.loggers:
            logger.save()


class StopOnSignal(Callback):
    """On a signal: finish the step, save, stop. A second Ctrl-C stops at once.

    The signals are those that the session answers outside the training: Ctrl-C, SIGTERM, SIGHUP, and
    SIGUSR2 where submitit answers it. In the middle of a step weights and optimizer may disagree;
    between two steps nothing is lost.

    Attributes:
        checkpoint: the file to save to, set once the run has a folder.
        session: set likewise.
        began: a step has been done, so what the training began with was in order.
    """

    checkpoint: Path
    session: Session

    def __init__(self) -> None:
        self.began = self.told = False
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Not earlier: Lightning's own handler of SIGTERM would end the training without saving.
        for signum in self.session.previous:
            self.previous[signum] = signal.signal(signum, self.note)

    def note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:
            leave_terminal()
        if self.received is not None and signum == signal.SIGINT:
            raise Interrupted(signum, self.checkpoint.parent.parent)
        self.received = signum

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: LitGPT, *_: Any) -> None:
        if not pl_module.stepped():  # gradients accumulated so far are in no checkpoint
            return
        self.began = True
        asked = self.received
        if trainer.world_size > 1:  # saving takes all processes, so all stop at the same step
            mine = torch.tensor(asked or 0, device=pl_module.device)
            # What a signal sets meanwhile is for the next step: the others have not been told.
            asked = int(trainer.strategy.reduce(mine, reduce_op="max")) or None
        self.stop_if(trainer, asked)

    def on_validation_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.world_size == 1:
            self.stop_if(trainer, self.received)

    def stop_if(self, trainer: L.Trainer, asked: int | None) -> None:
        if asked is not None:
            trainer.save_checkpoint(self.checkpoint)
            self.told = True
            raise Interrupted(asked, self.checkpoint.parent.parent)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.restore()
        if self.received is not None and not self.told:  # after the last step
            self.told = True
            raise Interrupted(self.received, self.checkpoint.parent.parent)

    def on_exception(self, *_: Any) -> None:
        self.restore()

    def restore(self) -> None:
        while self.previous:
            signal.signal(*self.previous.popitem())


class LastStep(Callback):
    """After the last step, whatever the intervals: every run ends with a measured and saved model.

    Attributes:
        checkpoint: the file to save to, set once the run has a folder.
    """

    checkpoint: Path

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True  # makes Lightning validate now

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.save_checkpoint(self.checkpoint)


class SelfContained(Callback):
    """Puts beside the weights what a lone checkpoint file needs to become a model again.

    Args:
        content: configuration and tokenizer, in plain types.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["modgpt"] = self.content
