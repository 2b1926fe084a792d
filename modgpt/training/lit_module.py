"""The LightningModule: loss, exact validation, optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric

from modgpt.data.base import DataModule
from modgpt.data.batch import IGNORED, inputs_and_targets
from modgpt.errors import TrainingError
from modgpt.model.gpt import GPT
from modgpt.training.objective import cross_entropy, objective
from modgpt.training.optimizers.schedule_free import ScheduleFree
from modgpt.training.techniques import PLAIN, Techniques


class LitGPT(L.LightningModule):
    """Trains a GPT on windows of T+1 tokens, or on inputs with the targets that count.

    `train/loss` and `val/loss` are the mean cross-entropy per counted target in nats. Auxiliary losses,
    label smoothing and z-loss are added for the gradient only, and logged under names of their own.
    Metrics are logged under the number of optimizer steps done.

    The last validation is complete. Those before it use a sample (`data.val_share`): `val/windows` says
    how many windows `val/loss` is measured on, and `val/sampled_loss` is measured on the same ones at
    every validation, the last among them, so that these losses can be compared.

    Args:
        model: the GPT.
        optimizer: builds the optimizer from the model.
        schedule: the factor on the learning rate, a function of the step.
        techniques: what else the training does.
    """

    def __init__(
        self,
        model: GPT,
        optimizer: Callable[[GPT], torch.optim.Optimizer],
        schedule: Callable[[int], float],
        techniques: Techniques = PLAIN,
    ) -> None:
        super().__init__()
        self.model, self.make_optimizer, self.schedule = model, optimizer, schedule
        self.techniques = techniques
        self.average = techniques.average_of(model)
        self.spikes = techniques.spike_guard()
        self.val_loss = MeanMetric()
        self.val_accuracy = MeanMetric()  # instead of the perplexity where the data have answers
        self.between_steps: list[Any] = [m for m in model.modules() if hasattr(m, "after_step")]
        self.latest: dict[str, Tensor | float] = {}  # detached metrics of the latest step
        self.sampled = 0  # batches of the sample
        self.complete = True  # whether the latest validation is, and not a sample
        # Nats and counted targets of each validated window: this process's (2,b) of every batch, and
        # after the validation all of them, (2,windows), in the order of the text.
        self.batches_of_windows: list[Tensor] = []
        self.window_losses = torch.empty(2, 0)
        self.sampled_windows = 0  # windows of the sample

    @property
    def data(self) -> DataModule:
        """The data module of the training."""
        return self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]

    def stepped(self) -> bool:
        """Whether the last batch completed a step: with accumulation, not every batch does."""
        return "train/grad_norm" in self.latest

    def logs_now(self) -> bool:
        """Whether the last batch completed a step that is logged."""
        every: int = self.trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        return self.stepped() and self.global_step % every == 0

    def averaging(self) -> list[ScheduleFree]:
        """The optimizers that take the gradient at other weights than those that are kept."""
        return [o for o in self.trainer.optimizers if isinstance(o, ScheduleFree)]

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        for optimizer in self.averaging():
            optimizer.to_y()

    def on_after_backward(self) -> None:
        for optimizer in self.averaging():
            optimizer.to_x()  # so that all else, such as a checkpoint, finds the average

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        inputs, targets = inputs_and_targets(batch)  # (B,T) each
        x, aux = self.model.hidden(inputs)
        added = self.techniques
        total, parts = objective(
            self.model, x, targets, label_smoothing=added.label_smoothing, z_loss=added.z_loss
        )
        self.latest = {**parts}
        if not aux:
            return total
        self.latest |= auxiliary_metrics({name: value.detach() for name, value in aux.items()})
        return total + aux["loss"].sum()

    @property
    def exact(self) -> torch.dtype:
        """The type of sums over 10⁵ tokens: in fp32 the last digits would depend on the batch size."""
        return torch.float32 if self.device.type == "mps" else torch.float64  # MPS has no fp64

    def on_validation_epoch_start(self) -> None:
        self.val_loss.set_dtype(self.exact)
        self.val_accuracy.set_dtype(self.exact)
        self.batches_of_windows = []
        (batches,) = self.trainer.num_val_batches
        self.sampled = self.data.sampled_batches(int(batches))
        alone = self.trainer.state.fn == TrainerFn.VALIDATING  # after a training
        self.complete = alone or self.global_step >= self.trainer.max_steps or self.sampled == batches

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        if batch_idx >= self.sampled and not self.complete:
            return
        inputs, targets = inputs_and_targets(batch)
        if not len(inputs):  # too few windows for all processes
            self.batches_of_windows.append(torch.empty(2, 0, dtype=self.exact))
            return
        logits, counted = self.model(inputs), targets != IGNORED
        nats = cross_entropy(logits, targets, reduction="none").view_as(targets)
        windows = torch.stack([nats.sum(1, dtype=self.exact), counted.sum(1)])  # (2,B)
        self.batches_of_windows.append(windows)
        total, targeted = windows.sum(1)
        self.val_loss.update(total / targeted, weight=targeted)
        if self.data.has_answers:
            self.val_accuracy.update((logits.argmax(-1) == targets)[counted])

    def on_validation_epoch_end(self) -> None:
        loss = self.val_loss.compute()
        metrics = {"val/loss": loss}
        if self.data.has_answers:
            metrics["val/accuracy"] = self.val_accuracy.compute()
        else:
            bits = loss / math.log(2)  # per token
            metrics["val/bpc"] = bits * self.data.tokens_per_character
            metrics["val/bpb"] = bits * self.data.tokens_per_byte
            metrics["val/perplexity"] = loss.exp()
        for metric in (self.val_loss, self.val_accuracy):
            metric.reset()
        batches = self.validated_batches()
        self.sampled_windows = sum(batch.shape[1] for batch in batches[: self.sampled])
        windows = torch.cat(batches, dim=1).cpu()
        sample = windows[:, : self.sampled_windows]
        self.window_losses = self.data.in_order(windows)
        metrics["val/sampled_loss"] = sample[0].sum() / sample[1].sum()
        metrics["val/windows"] = torch.tensor(float(self.window_losses.shape[1]))
        self.log_metrics(metrics)
        # Before any callback sees it: a checkpoint of such a model would count as the best one.
        check_finite("val/loss", float(loss), self.global_step)
        # For callbacks that monitor; the loggers have them under the number of steps.
        self.log_dict(metrics, logger=False, sync_dist=False)

    def validated_batches(self) -> list[Tensor]:
        """Nats and targets of the windows of each batch, (2,b), of all processes: r has every r-th."""
        n = self.trainer.world_size
        if n == 1:
            return self.batches_of_windows
        shares: list[list[Tensor]] = [[]] * n
        torch.distributed.all_gather_object(shares, [share.cpu() for share in self.batches_of_windows])
        batches = []
        for parts in zip(*shares, strict=True):
            batch = torch.empty(2, sum(part.shape[1] for part in parts), dtype=self.exact)
            for rank, part in enumerate(parts):
                batch[:, rank::n] = part
            batches.append(batch)
        return batches

    def log_metrics(self, metrics: dict[str, Any]) -> None:
        """Send metrics to the loggers under the number of steps done."""
        values = {name: float(value) for name, value in self.over_ranks(metrics).items()}
        for logger in self.loggers:
            logger.log_metrics(values, step=self.global_step)

    def over_ranks(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """The mean over the processes: each has its share of the batch."""
        if self.trainer.world_size == 1:
            return metrics
        names = sorted(metrics)
        values = [float(metrics[name]) for name in names]
        values = torch.tensor(values, dtype=self.exact, device=self.device)
        means = self.trainer.strategy.reduce(values, reduce_op="mean")
        return dict(zip(names, means.tolist(), strict=True))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, not at all at 0 or None; keep their norm before that.

        Of a step to skip, no gradients are left: the optimizer passes over weights without any.
        """
        by_value = gradient_clip_algorithm == "value"
        limit = gradient_clip_val or math.inf
        # Clipping by the norm computes it; an infinite limit leaves the gradients alone.
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), math.inf if by_value else limit)
        if by_value:
            torch.nn.utils.clip_grad_value_(self.model.parameters(), limit)
        self.latest["train/grad_norm"] = norm.detach()
        self.latest["lr"] = optimizer.param_groups[0]["lr"]  # of the step that comes next
        if self.spikes is not None:
            if self.spikes.judge(float(norm), self.global_step + 1):
                optimizer.zero_grad(set_to_none=True)
            self.latest["train/skipped_steps"] = float(self.spikes.skipped)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The step, then what a part does between steps: the balance of a mixture of experts."""
        super().optimizer_step(*args, **kwargs)
        for part in self.between_steps:
            part.after_step()
        if self.average is not None:
            self.average.update(self.global_step)  # which counts this step later

    def on_validation_start(self) -> None:
        if self.average is not None:
            self.average.show()

    def on_validation_end(self) -> None:
        """After the callbacks, which sample from the average of the weights and save it."""
        if self.average is not None:
            self.average.hide()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.average is not None:
            self.average.save(checkpoint)
        if self.spikes is not None:
            self.spikes.save(checkpoint)

    def log_step(self) -> None:
        """Log the last step, every `trainer.log_every_n_steps` steps.

        Raises:
            DivergedError: its loss is not finite, and it was not skipped.
        """
        if self.logs_now():
            self.log_metrics(self.latest)
            if self.spikes is None or not self.spikes.now:
                check_finite("train/loss", float(self.latest["train/loss"]), self.global_step)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Count batches as if every earlier step had accumulated as many as this training does.

        Lightning counts batches, and derives from their number which of them completes a step and which
        is followed by a validation.
        """
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        if self.average is not None:
            self.average.load(checkpoint)
        if self.spikes is not None:
            self.spikes.load(checkpoint)
        counted = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        for batches in (progress["current"], progress["total"]):
            shift = counted - batches["ready"]
            batches |= {name: n + shift for name, n in batches.items()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.make_optimizer(self.model)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class DivergedError(TrainingError):
    """A loss is infinite or not a number."""

    status = "diverged"

    def __init__(self, name: str, loss: float, step: int) -> None:
        super().__init__(
            f"{name} is {loss} at step {step}: try a lower optimizer.lr or a longer schedule.warmup"
        )


def check_finite(name: str, loss: float, step: int) -> None:
    """Raise a `DivergedError` if the loss is infinite or not a number."""
    if not math.isfinite(loss):
        raise DivergedError(name, loss, step)


def auxiliary_metrics(aux: dict[str, Tensor]) -> dict[str, Tensor]:
    """Metrics of a model's aux, which is stacked over layers: means over layers, vectors by entry."""
    metrics = {}
    for name, value in aux.items():
        if value.dim() == 1:
            metrics[f"aux/{name}"] = value.sum() if name == "loss" else value.mean()
        else:
            for i, entry in enumerate(value.mean(0)):
                metrics[f"{name}/{i}"] = entry
    return metrics
