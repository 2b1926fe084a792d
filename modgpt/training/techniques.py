"""Techniques of training that a configuration switches on, apart from model, optimizer and schedule."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import isclass

from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import DictConfig

from modgpt.config.check import target_at
from modgpt.errors import UserError, as_user_errors
from modgpt.model.gpt import GPT
from modgpt.training.averaging import WeightAverage
from modgpt.training.spikes import SpikeGuard

MOST_SKIPPED = 10


@dataclass(frozen=True)
class Techniques:
    """The techniques of one training; all are off by default.

    Args:
        label_smoothing: ε (`modgpt.training.objective`).
        z_loss: coefficient of the z-loss, likewise.
        ema: decay of an exponential moving average of the weights (`modgpt.training.averaging`).
        tail_average: the last share of the steps, whose weights are averaged uniformly.
        skip_spikes: how many times the running median a gradient norm must be for its step to be skipped
            (`modgpt.training.spikes`).
        max_skipped_steps: how many steps; None for the default.
        max_steps: of the training.

    Raises:
        ValueError: a value is out of its range, or two techniques exclude each other.
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    ema: float = 0.0
    tail_average: float = 0.0
    skip_spikes: float = 0.0
    max_skipped_steps: int | None = None
    max_steps: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:  # refuses NaN, too
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        if not 0 <= self.z_loss < float("inf"):
            raise ValueError(f"z_loss must be 0 or a positive number, got {self.z_loss}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), got {self.ema}; 0 turns it off")
        if not 0 <= self.tail_average <= 1:
            raise ValueError(
                f"tail_average must be a share of the steps, at most 1, got {self.tail_average}"
            )
        if self.ema and self.tail_average:
            raise ValueError(
                f"ema={self.ema} and tail_average={self.tail_average} are two averages of the weights: "
                "give one of them"
            )

        if self.skip_spikes != 0 and not 1 < self.skip_spikes < float("inf"):
            raise ValueError(
                f"skip_spikes must be a number above 1, got {self.skip_spikes}; 0 turns it off"
            )
        if self.max_skipped_steps is not None:
            if not self.skip_spikes:
                given = f"max_skipped_steps={self.max_skipped_steps}"
                raise ValueError(f"{given} has no effect without skip_spikes: give both")
            if self.max_skipped_steps < 1:
                raise ValueError(f"max_skipped_steps must be at least 1, got {self.max_skipped_steps}")

    def spike_guard(self) -> SpikeGuard | None:
        """What judges the steps; None where none is skipped."""
        if not self.skip_spikes:
            return None
        return SpikeGuard(self.skip_spikes, self.max_skipped_steps or MOST_SKIPPED)

    @property
    def average_start(self) -> int:
        """Steps before the first one whose weights are averaged."""
        return tail_start(self.tail_average, self.max_steps) if self.tail_average else 0

    def average_of(self, model: GPT) -> WeightAverage | None:
        """The average of a model's weights that is validated and saved; None for the raw weights."""
        if not (self.ema or self.tail_average):
            return None
        return WeightAverage(model, self.ema or 1.0, self.average_start)


def tail_start(share: float, max_steps: int) -> int:
    """Steps before the last share of all; at least the last step belongs to it."""
    return max_steps - max(1, round(share * max_steps))


PLAIN = Techniques()


def techniques_of(cfg: DictConfig) -> Techniques:
    """The techniques that a resolved configuration asks for.

    Raises:
        UserError: a value is out of its range, or two settings exclude each other.
    """
    with as_user_errors():
        techniques = Techniques(
            label_smoothing=cfg.label_smoothing,
            z_loss=cfg.z_loss,
            ema=cfg.ema,
            tail_average=cfg.tail_average,
            skip_spikes=cfg.skip_spikes,
            max_skipped_steps=cfg.max_skipped_steps,
            max_steps=cfg.trainer.max_steps,
        )
    if techniques.skip_spikes and str(cfg.trainer.get("precision")) in ("16", "16-mixed"):
        raise UserError(
            f"skip_spikes={techniques.skip_spikes} does not go with trainer.precision="
            f"{cfg.trainer.precision}, whose loss scaling skips steps itself: use bf16-mixed"
        )
    for name, node in cfg.callbacks.items() if techniques.tail_average else ():
        made = target_at(f"callbacks.{name}", node["_target_"]) if node is not None else None
        if isclass(made) and issubclass(made, EarlyStopping):
            raise UserError(
                f"tail_average={techniques.tail_average} averages the last steps before "
                f"trainer.max_steps, and callbacks.{name} may end the training before them: use ema, or "
                f"callbacks.{name}=null"
            )
    return techniques
