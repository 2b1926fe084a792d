"""Averages of the weights over the steps of a training: exponential, or uniform over its last steps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from modgpt.model.precision import wide, wide_dtype

ENTRY = "averaging"  # of a checkpoint
PREFIX = "model."  # of the GPT's weights in the state dict of the LightningModule


class WeightAverage:
    """The average A_n of the weights θ_1 … θ_n after each step, kept in fp32 or better.

    A_n = Σ_i d^(n−i) θ_i / Σ_i d^(n−i), by A_n = A_(n−1) + s_n (θ_n − A_(n−1)) with the share
    s_n = (1 − d)/(1 − d^n). For d < 1 that is an exponential moving average whose weights add up to 1
    from the first step on (the correction of Kingma & Ba 2015, "Adam", section 3), so that the initial
    weights have no part in it. For d = 1, s_n = 1/n: the uniform mean (Polyak & Juditsky 1992; Izmailov
    et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization").

    The training goes on with the raw weights. Validations, samples and checkpoints have the average, and
    a checkpoint has the raw weights beside it. Before the first averaged step all have the raw weights.
    Buffers that a checkpoint keeps, such as the biases of a mixture's router, are averaged likewise.

    Args:
        model: the GPT.
        decay: d.
        start: steps before the first one that is averaged.
    """

    def __init__(self, model: nn.Module, decay: float, start: int) -> None:
        self.model, self.decay, self.start = model, decay, start
        self.steps = 0  # n
        self.averages: dict[str, Tensor] = {}
        self.raw: dict[str, Tensor] | None = None  # while the model has the average

    def names(self) -> dict[str, str]:
        """Every entry of the model's state dict, with the name under which its tensor is averaged.

        A tensor with several names, such as that of a tied head, is averaged once.
        """
        first: dict[int, str] = {}
        state = self.model.state_dict(keep_vars=True)
        return {n: first.setdefault(id(t), n) for n, t in state.items() if t.is_floating_point()}

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are averaged, as they are in the model."""
        state = self.model.state_dict()
        return {name: state[name] for name in dict.fromkeys(self.names().values())}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after a step into the average.

        Args:
            step: how many steps came before it.
        """
        if step < self.start:
            return
        self.steps += 1
        current = self.tensors()
        if self.steps == 1:
            self.averages = {name: wide(t).clone() for name, t in current.items()}
            return
        for name, t in current.items():  # a checkpoint is read on the CPU
            self.averages[name] = self.averages[name].to(t.device)
            self.averages[name].lerp_(wide(t), self.share)

    @property
    def share(self) -> float:
        """s_n, the share of the latest weights."""
        if self.decay == 1:
            return 1 / self.steps
        return (1 - self.decay) / -math.expm1(self.steps * math.log(self.decay))

    @torch.no_grad()
    def show(self) -> None:
        """Give the model the average, where there is one."""
        if not self.steps or self.raw is not None:
            return
        current = self.tensors()
        self.raw = {name: t.clone() for name, t in current.items()}
        for name, t in current.items():
            t.copy_(self.averages[name])

    @torch.no_grad()
    def hide(self) -> None:
        """Give the model the raw weights again."""
        if self.raw is None:
            return
        for name, t in self.tensors().items():
            t.copy_(self.raw[name])
        self.raw = None

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Put the average in the place of the weights, and beside it what a resumed run needs."""
        if not self.steps:
            return
        current = self.tensors()
        checkpoint[ENTRY] = {
            "steps": self.steps,
            "start": self.start,
            "averages": self.averages,
            "raw": self.raw or current,
        }
        shown = {name: self.averages[name].to(t.dtype) for name, t in current.items()}
        own = {PREFIX + name: shown[kept] for name, kept in self.names().items()}
        checkpoint["state_dict"] = checkpoint["state_dict"] | own

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Take the average from a checkpoint, and put the raw weights in its place.

        An average that began at another step is one of an earlier budget, and is dropped.

        Raises:
            ValueError: the average is not one of this model.
        """
        saved = checkpoint.get(ENTRY)
        if saved is None:
            return
        own = {PREFIX + name: saved["raw"][kept] for name, kept in self.names().items()}
        checkpoint["state_dict"] = checkpoint["state_dict"] | own
        if saved["start"] != self.start:
            return
        averages, steps = saved["averages"], saved["steps"]
        for name, t in self.tensors().items():
            average = averages[name]
            if average.shape != t.shape or average.dtype != wide_dtype(t.dtype) or steps < 1:
                raise ValueError(f"the average of {name} is damaged")
        self.averages, self.steps = averages, steps
