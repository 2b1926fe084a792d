"""Callbacks every run has: they make it resumable from any step."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

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
    A LightningModule's own hook comes after all callbacks', among them those that save.
    """

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: LitGPT, *_: Any) -> None:
        pl_module.log_step()

    def on_save_checkpoint(self, trainer: L.Trainer, *_: Any) -> None:
        for logger in trainer.loggers:
            logger.save()


class Interrupted(Exception):
    """The run was asked to stop; what it has saved last can be resumed."""

    def __init__(self, signum: int, folder: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum, self.folder = signum, folder


class StopOnSignal(Callback):
    """On Ctrl-C or SIGTERM: finish the step, save, stop. A second Ctrl-C stops at once.

    Likewise on SIGUSR2 where that is answered, by submitit: Slurm is about to end the job.

    In the middle of a step weights and optimizer may disagree; between two steps nothing is lost.

    Attributes:
        checkpoint: the file to save to, set once the run has a folder.
    """

    checkpoint: Path

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Not earlier: Lightning would take our handlers for the original ones, and give those back.
        signals = [signal.SIGINT, signal.SIGTERM]
        if callable(signal.getsignal(signal.SIGUSR2)):
            signals.append(signal.SIGUSR2)
        for signum in signals:
            if signal.getsignal(signum) is signal.SIG_IGN:
                continue  # somebody else answers it: the sweep this job belongs to, or nohup
            try:
                self.previous[signum] = signal.signal(signum, self.note)
            except ValueError:  # not in the main thread, which alone receives signals
                return

    def note(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None and signum == signal.SIGINT:
            raise Interrupted(signum, self.checkpoint.parent.parent)
        self.received = signum

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: LitGPT, *_: Any) -> None:
        if not pl_module.stepped():  # gradients accumulated so far are in no checkpoint
            return
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
            raise Interrupted(asked, self.checkpoint.parent.parent)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.restore()

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
