"""The progress bar: loss, tokens per second, time left; plain lines without a terminal."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from modgpt.console import Output, redraws
from modgpt.training.lit_module import LitGPT

# The time left is estimated from the steps of the last so many seconds. Rich's own 30 s hold less than
# two steps of a large model on a slow machine, and then it knows no time at all.
SPEED_SECONDS = 1800.0


class ProgressBar(Callback):
    """A rich bar over the steps, with a line above it for every validation.

    It moves with every step. Loss and speed change when they are logged, every
    `trainer.log_every_n_steps` steps: reading them makes the host wait for a GPU.
    """

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self.console = Output()
        self.bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=None),
            TextColumn("loss {task.fields[loss]}"),
            TextColumn("{task.fields[speed]} tokens/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not redraws(self.console),
            transient=True,
            speed_estimate_period=SPEED_SECONDS,
        )
        self.task = self.bar.add_task(
            "train", total=trainer.max_steps, completed=trainer.global_step, loss="-", speed="-"
        )
        self.bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: LitGPT, *_: Any) -> None:
        if self.bar is None or not pl_module.stepped():
            return
        self.bar.update(self.task, completed=trainer.global_step)
        if pl_module.logs_now():
            loss = f"{float(pl_module.latest['train/loss']):.3f}"
            speed = f"{float(pl_module.latest.get('tokens_per_second', 0)):,.0f}"
            self.bar.update(self.task, loss=loss, speed=speed)

    def on_validation_end(self, trainer: L.Trainer, pl_module: LitGPT) -> None:
        if self.bar is None:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        width = len(str(trainer.max_steps))
        line = f"step {trainer.global_step:>{width}}  val/loss {metrics['val/loss']:.4f} nats  "
        if "val/accuracy" in metrics:
            line += f"accuracy {metrics['val/accuracy']:.2%}"
        else:
            line += f"{metrics['val/bpb']:.4f} bits per byte"
        if not pl_module.complete:
            line += f"  on a sample of {metrics['val/windows']:.0f} windows"
        self.bar.console.print(line, highlight=False)

    def on_train_end(self, *_: Any) -> None:
        self.close()

    def on_exception(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
