"""The LightningModule: loss, exact validation, optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric
from torchmetrics.text import Perplexity

from modgpt.data.base import DataModule
from modgpt.data.batch import IGNORED, inputs_and_targets
from modgpt.errors import TrainingError
from modgpt.model.gpt import GPT


class LitGPT(L.LightningModule):
    """Trains a GPT on windows of T+1 tokens, or on inputs with the targets that count.

    `train/loss` and `val/loss` are the mean cross-entropy per counted target in nats, nothing else;
    auxiliary losses join the gradient and are logged apart. Metrics are logged against the number of
    optimizer steps done.

    Args:
        model: the GPT.
        optimizer: makes the optimizer from the model.
        schedule: factor on the learning rate, a function of the step.
    """

    def __init__(
        self,
        model: GPT,
        optimizer: Callable[[GPT], torch.optim.Optimizer],
        schedule: Callable[[int], float],
    ) -> None:
        super().__init__()
        self.model, self.make_optimizer, self.schedule = model, optimizer, schedule
        self.val_loss = MeanMetric()
        self.val_perplexity = Perplexity()
        self.val_accuracy = MeanMetric()  # in place of the perplexity where the data have answers
        self.latest: dict[str, Tensor | float] = {}  # detached metrics of the latest step

    @property
    def data(self) -> DataModule:
        """The data module it is trained on."""
        return self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]

    def stepped(self) -> bool:
        """Whether the batch just done, of several accumulated ones the last, completed a step."""
        return "train/grad_norm" in self.latest

    def logs_now(self) -> bool:
        """Whether the batch just done completed a step that is to be logged."""
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        return self.stepped() and self.global_step % every == 0

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        inputs, targets = inputs_and_targets(batch)  # (B,T) each
        x, aux = self.model.hidden(inputs)
        logits = self.model.logits(x)  # (B,T,V)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED)
        self.latest = {"train/loss": loss.detach()}
        if not aux:
            return loss
        self.latest |= auxiliary_metrics({name: value.detach() for name, value in aux.items()})
        return loss + aux["loss"].sum()

    def on_validation_epoch_start(self) -> None:
        # Sums over 10⁵ tokens in fp64: in fp32 the last digits would depend on the batch size.
        # MPS has no fp64.
        if self.device.type != "mps":
            self.val_loss.set_dtype(torch.float64)
            self.val_perplexity.set_dtype(torch.float64)
            self.val_accuracy.set_dtype(torch.float64)

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        inputs, targets = inputs_and_targets(batch)
        if not len(inputs):
            return  # too few windows for all processes
        logits = self.model(inputs).float()
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        counted = targets != IGNORED
        self.val_loss.update(loss, weight=counted.sum())
        if self.data.has_answers:
            self.val_accuracy.update((logits.argmax(-1) == targets)[counted])
        else:
            self.val_perplexity.update(logits, targets)

    def on_validation_epoch_end(self) -> None:
        metrics = {"val/loss": self.val_loss.compute()}
        if self.data.has_answers:
            metrics["val/accuracy"] = self.val_accuracy.compute()
        else:
            metrics["val/bpc"] = metrics["val/loss"] / math.log(2) * self.data.tokens_per_character
            metrics["val/perplexity"] = self.val_perplexity.compute()
        for metric in (self.val_loss, self.val_perplexity, self.val_accuracy):
            metric.reset()
        # For callbacks that monitor; the loggers get them under the step's own number.
        self.log_dict(metrics, logger=False, sync_dist=False)
        self.log_metrics(metrics)

    def log_metrics(self, metrics: dict[str, Any]) -> None:
        """Send metrics to the loggers under the number of steps done."""
        values = {name: float(value) for name, value in self.over_ranks(metrics).items()}
        for logger in self.loggers:
            logger.log_metrics(values, step=self.global_step)

    def over_ranks(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """The mean over the processes, each of which has seen its share of the batch."""
        if self.trainer.world_size == 1:
            return metrics
        names = sorted(metrics)
        values = torch.tensor([float(metrics[name]) for name in names], device=self.device)
        means = self.trainer.strategy.reduce(values, reduce_op="mean")
        return dict(zip(names, means.tolist(), strict=True))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the global norm, and keep the norm, which is so computed only once."""
        limit = math.inf if gradient_clip_val is None else gradient_clip_val
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.latest["train/grad_norm"] = norm.detach()
        self.latest["lr"] = optimizer.param_groups[0]["lr"]  # that of the step about to be made

    def log_step(self) -> None:
        """Log the step just done, if its turn has come.

        Raises:
            DivergedError: its loss is not finite.
        """
        if self.logs_now():
            self.log_metrics(self.latest)
            if not math.isfinite(float(self.latest["train/loss"])):
                raise DivergedError(self.global_step, float(self.latest["train/loss"]))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(self.model)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class DivergedError(TrainingError):
    """The training loss is no longer a number."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(
            f"train/loss is {loss} at step {step}: try a lower optimizer.lr or a longer "
            "schedule.warmup_steps"
        )


def auxiliary_metrics(aux: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a model's aux, stacked over layers, adds to the log: means over layers, vectors by entry."""
    metrics = {}
    for name, value in aux.items():
        if value.dim() == 1:
            metrics[f"aux/{name}"] = value.sum() if name == "loss" else value.mean()
        else:
            for i, entry in enumerate(value.mean(0)):
                metrics[f"{name}/{i}"] = entry
    return metrics
