"""Techniques of training that a configuration switches on, apart from model, optimizer and schedule."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import DictConfig

from modgpt.errors import as_user_errors


@dataclass(frozen=True)
class Techniques:
    """The techniques of one training; all are off by default.

    Args:
        label_smoothing: ε (`modgpt.training.objective`).
        z_loss: coefficient of the z-loss, likewise.

    Raises:
        ValueError: a value is out of its range.
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:  # refuses NaN, too
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        if not 0 <= self.z_loss < float("inf"):
            raise ValueError(f"z_loss must be 0 or a positive number, got {self.z_loss}")


PLAIN = Techniques()


def techniques_of(cfg: DictConfig) -> Techniques:
    """The techniques that a resolved configuration asks for.

    Raises:
        UserError: a value is out of its range.
    """
    with as_user_errors():
        return Techniques(label_smoothing=cfg.label_smoothing, z_loss=cfg.z_loss)
