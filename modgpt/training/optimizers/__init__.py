"""Optimizers: functions of the model, because each treats some weights differently from others."""

from modgpt.training.optimizers.adam import adamw
from modgpt.training.optimizers.orthogonal import muon

__all__ = ["adamw", "muon"]
