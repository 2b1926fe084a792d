"""The progress bar: loss, tokens per second, time left; plain lines where there is no terminal."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class ProgressBar(Callback):
    """A rich bar over the steps, with a line above it for every validation.

    Args:
        refresh_every: steps between updates of the numbers; each reads the loss from the device.
    """

    def __init__(self, refresh_every: int = 10) -> None:
        self.refresh_every = refresh_every
        self.bar: Progress | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        self.console = Console()
        self.clock, self.clock_step = time.perf_counter(), trainer.global_step
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
            disable=not self.console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task(
            "train", total=trainer.max_steps, completed=trainer.global_step, loss="-", speed="-"
        )
        self.bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any
    ) -> None:
        step = trainer.global_step
        if self.bar is None or step % self.refresh_every or step == self.clock_step:
            return
        now = time.perf_counter()
        tokens = trainer.datamodule.tokens_per_step() * (step - self.clock_step)
        speed = tokens / (now - self.clock)
        self.clock, self.clock_step = now, step
        loss = float(pl_module.latest["train/loss"])
        self.bar.update(self.task, completed=step, loss=f"{loss:.3f}", speed=f"{speed:,.0f}")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.bar is None:
            return
        loss, bpc = (float(trainer.callback_metrics[f"val/{name}"]) for name in ("loss", "bpc"))
        width = len(str(trainer.max_steps))
        self.bar.console.print(
            f"step {trainer.global_step:>{width}}  val/loss {loss:.4f} nats  {bpc:.4f} bits per character",
            highlight=False,
        )
        self.clock, self.clock_step = time.perf_counter(), trainer.global_step

    def on_train_end(self, *_: Any) -> None:
        self.close()

    def on_exception(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
