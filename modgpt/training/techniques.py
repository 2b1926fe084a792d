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


@dataclass(frozen=True)
class Techniques:
    """The techniques of one training; all are off by default.

    Args:
        label_smoothing: ε (`modgpt.training.objective`).
        z_loss: coefficient of the z-loss, likewise.
        ema: decay of an exponential moving average of the weights (`modgpt.training.averaging`).
        tail_average: the last share of the steps, whose weights are averaged uniformly.
        max_steps: of the training.

    Raises:
        ValueError: a value is out of its range, or two techniques exclude each other.
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    ema: float = 0.0
    tail_average: float = 0.0
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
            max_steps=cfg.trainer.max_steps,
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
