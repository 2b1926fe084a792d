"""Callbacks of every run: they measure what goes into its record."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from modgpt.data.batch import inputs_and_targets
from modgpt.runs.window_losses import WindowLosses

if TYPE_CHECKING:
    from modgpt.training.lit_module import LitGPT


STEPS_TO_COMPILE = 2  # the blocks are compiled in the first


class Throughput(Callback):
    """Measures training tokens per second, without validation.

    Args:
        compiled: leave out the first steps, in which the blocks are compiled, if there are others.

    Attributes:
        tokens: trained on since the start of this process.
        seconds: spent in training steps.
    """

    def __init__(self, compiled: bool) -> None:
        self.compiling = STEPS_TO_COMPILE if compiled else 0
        self.tokens, self.seconds = 0, 0.0
        self.window = (0, 0.0)  # tokens and seconds at the last log
        self.since: float | None = None

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if self.since is None:
            self.since = time.perf_counter()
            self.first_step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: LitGPT, *_: Any) -> None:
        if self.compiling:
            self.compiling -= pl_module.stepped()
            if not self.compiling:
                self.since = None  # the clock starts with the next step
        elif pl_module.logs_now():
            self.take(pl_module)
            tokens, seconds = self.tokens - self.window[0], self.seconds - self.window[1]
            if tokens and seconds:
                self.window = (self.tokens, self.seconds)
                pl_module.latest["tokens_per_second"] = tokens / seconds  # logged with the step

    def take(self, pl_module: LitGPT) -> None:
        """Add the tokens and seconds since the clock was last read."""
        now = time.perf_counter()
        if self.since is not None:
            self.seconds += now - self.since
            steps = pl_module.global_step - self.first_step
            self.tokens += steps * pl_module.data.tokens_per_step()
            self.since, self.first_step = now, pl_module.global_step

    def on_validation_start(self, trainer: L.Trainer, pl_module: LitGPT) -> None:
        self.take(pl_module)
        self.since = None  # the clock stops until the next step

    def on_train_end(self, trainer: L.Trainer, pl_module: LitGPT) -> None:
        self.take(pl_module)

    @property
    def tokens_per_second(self) -> float | None:
        """Mean over the whole training of this process."""
        return self.tokens / self.seconds if self.seconds else None


class AttentionBackend(Callback):
    """Records which attention kernel runs on the first batch.

    It watches a forward pass of its own: code that runs first under a recorder is never compiled. The
    pass has one sequence, because FlexAttention writes all its scores to memory if it is not compiled.

    Attributes:
        name: `flash`, `efficient` or `cudnn` of `scaled_dot_product_attention`, `flex`, or `math` for
            plain matrix products; None before the first step.
    """

    def __init__(self) -> None:
        self.name: str | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: LitGPT, batch: Tensor, batch_idx: int
    ) -> None:
        if self.name is not None:
            return
        recorder, eagerly = KernelRecorder(), torch.compiler.set_stance("force_eager")
        with torch.random.fork_rng(), eagerly, trainer.precision_plugin.forward_context(), recorder:
            pl_module.model.hidden(inputs_and_targets(batch)[0][:1])
        self.name = " + ".join(sorted(recorder.seen)) or "math"


class KernelRecorder(TorchDispatchMode):
    """Sees every operation below autograd, also fused attention kernels."""

    KERNELS = ("flash", "efficient", "cudnn")
    supports_higher_order_operators = True  # FlexAttention is one

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__
        if name.startswith("_scaled_dot_product_"):
            self.seen.update(k for k in self.KERNELS if f"_{k}_" in name)
        elif name.startswith("flex_attention"):
            self.seen.add("flex")
        return func(*args, **(kwargs or {}))


class Validations(Callback):
    """Keeps the final and the best validation loss with their steps.

    The best is that of the sampled windows, which every validation measures. Also the final accuracy of
    data with answers, or the final bits per byte of a text. All go into the checkpoint, so that a
    resumed run knows the earlier ones.

    Args:
        interval: steps between validations.

    Attributes:
        report: called after each validation with all of them, set once the run has a record.
        keep: called with the losses of the windows after a complete validation, set likewise.
        complete: whether the latest validation was.
    """

    report: Callable[..., None]
    keep: Callable[[WindowLosses], None]

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.losses: dict[str, Any] = {}
        self.complete = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: LitGPT) -> None:
        loss, step = float(trainer.callback_metrics["val/loss"]), trainer.global_step
        windows = int(trainer.callback_metrics["val/windows"])
        self.complete = pl_module.complete
        self.losses |= {"final_val_loss": loss, "final_step": step, "final_val_windows": windows}
        for metric, name in (("accuracy", "final_val_accuracy"), ("bpb", "final_val_bits_per_byte")):
            if f"val/{metric}" in trainer.callback_metrics:
                self.losses[name] = float(trainer.callback_metrics[f"val/{metric}"])
        sampled = float(trainer.callback_metrics["val/sampled_loss"])
        if sampled <= self.losses.get("best_val_loss", sampled):
            windows = pl_module.sampled_windows
            self.losses |= {"best_val_loss": sampled, "best_val_windows": windows, "best_step": step}
        if self.complete:
            nats, targets = pl_module.window_losses.numpy()
            self.keep(WindowLosses(step, nats, targets))
        self.report(**self.losses)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # A run that stopped between a step and its validation: Lightning would leave that one out.
        interval, step = self.interval, trainer.global_step
        if step and step % interval == 0 and self.losses.get("final_step") != step:
            loop = trainer.fit_loop.epoch_loop.val_loop
            loop.restarting = False  # or it would count the batches of an earlier validation as done
            loop.run()

    def state_dict(self) -> dict[str, Any]:
        return self.losses | {"complete": self.complete}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses = dict(state_dict)
        self.complete = bool(self.losses.pop("complete", False))
        if not all(isinstance(value, int | float) and isfinite(value) for value in self.losses.values()):
            raise ValueError(f"the losses so far are damaged: {self.losses}")


class HyperParameters(Callback):
    """Writes TensorBoard's HParams: choices and sizes, with the losses of the run.

    Args:
        parameters: plain values to compare runs by.
        validations: knows the losses.
    """

    def __init__(self, parameters: dict[str, Any], validations: Validations) -> None:
        self.parameters, self.validations = parameters, validations

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        # Not on_train_end: a run that is resumed for its last validation alone does not train. Not
        # later: the loggers are closed, and a writer opened again would hide what a resumed run logged.
        losses = self.validations.losses
        if losses.get("final_step") != trainer.global_step:
            return
        metrics = {f"hp/{name}": losses[name] for name in ("final_val_loss", "best_val_loss")}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(self.parameters, metrics, step=trainer.global_step)
