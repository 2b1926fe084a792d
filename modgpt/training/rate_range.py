"""Learning-rate range test: the loss of a short training whose rate grows exponentially."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig
from torch import Tensor

from modgpt.config.compose import Job, compose
from modgpt.errors import TrainingError, UserError
from modgpt.training.checkpoint_io import AtomicCheckpointIO
from modgpt.training.lit_module import LitGPT
from modgpt.training.loop import quiet_lightning, without_advice
from modgpt.training.memory import out_of_memory_told
from modgpt.training.prepare import prepare
from modgpt.training.trainer import build_trainer

FEWEST_STEPS = 20
SMOOTHING = 0.9  # share of the earlier losses in the smoothed one
TOO_HIGH = 1.5  # the test ends at a smoothed loss so many times the lowest


@dataclass(frozen=True)
class RateRange:
    """The losses of a range test (Smith 2017, "Cyclical Learning Rates", section 3.3).

    Attributes:
        rates: the learning rate of each step.
        losses: the training loss of each step, before it.
        smoothed: their exponential moving average, corrected for its start.
    """

    rates: Sequence[float]
    losses: Sequence[float]
    smoothed: Sequence[float]

    @property
    def lowest(self) -> float:
        """The rate at the lowest smoothed loss: from there on it rises."""
        return self.rates[self.index]

    @property
    def index(self) -> int:
        """The step of the lowest smoothed loss."""
        return min(range(len(self.smoothed)), key=lambda i: self.smoothed[i])

    @property
    def suggestion(self) -> float:
        """The rate at which the smoothed loss falls fastest, per factor of the rate.

        The fall is that over a tenth of the steps: a single bad batch makes a steep one behind it.
        """
        loss, reach = self.smoothed, max(1, min(len(self.rates) // 20, self.index // 2 - 1))
        steps = range(reach, max(self.index - reach, reach) + 1)
        return self.rates[max(steps, key=lambda i: loss[i - reach] - loss[i + reach])]


class Losses(Callback):
    """Keeps rate and loss of every step, and ends the test where the loss has left its range."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.smoothed: list[float] = []
        self.batches: list[Tensor] = []  # the losses of those accumulated so far
        self.average = 0.0

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: LitGPT, *_: Any) -> None:
        self.batches.append(torch.as_tensor(pl_module.latest["train/loss"]))
        if not pl_module.stepped():
            return
        loss = float(torch.stack(self.batches).mean())
        self.batches = []
        if not math.isfinite(loss):
            trainer.should_stop = True
            return
        self.rates.append(float(pl_module.latest["lr"]))
        self.losses.append(loss)
        self.average = SMOOTHING * self.average + (1 - SMOOTHING) * loss
        self.smoothed.append(self.average / (1 - SMOOTHING ** len(self.losses)))
        if self.smoothed[-1] > TOO_HIGH * min(self.smoothed):
            trainer.should_stop = True


def measure_rates(job: Job, first: float, last: float, steps: int) -> RateRange:
    """Train a job for a few steps with a rate that grows exponentially; nothing is written.

    Everything but schedule, budget, callbacks and loggers is the job's. With several rates, such as
    those of Muon and its AdamW, all grow in proportion.

    Args:
        job: as composed.
        first, last: the rates of the first and the last step.
        steps: how many.

    Raises:
        UserError: an argument is out of its range, or the job cannot be tested.
        TrainingError: the loss does not fall at any rate.
    """
    if not 0 < first < last < math.inf:
        raise UserError(f"the rates must grow from above 0, got --from {first:g} --to {last:g}")
    if steps < FEWEST_STEPS:
        raise UserError(f"--steps must be at least {FEWEST_STEPS}, got {steps}")
    prepared = prepare(replace(job, config=for_test(job.config, steps)))
    cfg, module = prepared.config, prepared.module
    peak = float(cfg.optimizer.get("lr") or 0.0)
    if not peak > 0:
        raise UserError(f"optimizer.lr must be above 0 to be scaled, got {cfg.optimizer.get('lr')}")
    growth = math.log(last / first) / (steps - 1)
    module.schedule = lambda step: first * math.exp(growth * step) / peak
    quiet_lightning()
    L.seed_everything(cfg.seed, verbose=False)
    torch.set_num_threads(cfg.threads)
    if cfg.compile:
        module.model.compile_blocks()
    found = Losses()
    trainer = build_trainer(
        cfg, [found], AtomicCheckpointIO(), enable_checkpointing=False, limit_val_batches=0
    )
    with without_advice(), out_of_memory_told(prepared.data.batch_size):
        trainer.fit(module, datamodule=prepared.data)
    measured = RateRange(found.rates, found.losses, found.smoothed)
    if len(measured.rates) < 3 or measured.index < 2:
        raise TrainingError(
            f"the loss does not fall at any rate from {first:g} to {last:g}: try other rates, or more "
            "steps"
        )
    return measured


def for_test(composed: DictConfig, steps: int) -> DictConfig:
    """The configuration of a job with the budget of a test, and without what has no part in it.

    Raises:
        UserError: a setting would change what the test measures, or cannot be had in it.
    """
    if composed.skip_spikes:
        raise UserError(
            f"skip_spikes={composed.skip_spikes} would skip the steps that find-lr looks for: leave it "
            "out"
        )
    if str(composed.trainer.get("devices", 1)) != "1":
        raise UserError(f"find-lr runs on one device, got trainer.devices={composed.trainer.devices}")
    config = composed.copy()
    config.schedule = compose(["schedule=constant", "schedule.warmup_steps=0"]).schedule
    config.trainer.max_steps, config.max_bytes, config.tail_average = steps, None, 0.0
    config.callbacks, config.logger = {}, {}
    return config
