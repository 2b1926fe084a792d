"""Bytes of weights, gradients and optimizer state, read off the model and its optimizer.

The optimizer makes one step on tensors without memory (PyTorch's `FakeTensorMode`, whose tensors have a
shape, a type and a device). So a new optimizer is counted without a line here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer

from modgpt.model.ffn.moe import GroupedLinear
from modgpt.model.gpt import GPT
from modgpt.training.optimizers.schedule_free import ScheduleFree
from modgpt.training.optimizers.stepping import Together


@dataclass(frozen=True)
class States:
    """What lives as long as the training, in bytes.

    Attributes:
        parameters: of the weights.
        gradients: of all gradients at once.
        optimizer: of its state after a step.
        averages: further copies of the weights: `ema`, `tail_average`, or that of schedule-free AdamW
            between forward and backward pass.
    """

    parameters: int
    gradients: int
    optimizer: int
    averages: int

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.averages


def states_of(model: GPT, make_optimizer: Any, averaged: bool, mode: FakeTensorMode) -> States:
    """The states of a model of fake tensors, after one step of its optimizer.

    Args:
        model: built within `mode`.
        make_optimizer: builds the optimizer from the model.
        averaged: whether the training keeps an average of the weights.
        mode: of the tensors.
    """
    weights = list(model.parameters())
    with mode:
        optimizer: Optimizer = make_optimizer(model)
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        optimizer.step()
    parameters, gradients = nbytes(weights), nbytes(weight.grad for weight in weights)
    averages = parameters * (averaged + isinstance(optimizer, ScheduleFree))
    state = optimizer_bytes(optimizer)
    for weight in weights:
        weight.grad = None
    return States(parameters, gradients, state, averages)


def optimizer_bytes(optimizer: Optimizer) -> int:
    """Bytes of all tensors in an optimizer's state."""
    members = optimizer.members if isinstance(optimizer, Together) else [optimizer]
    return nbytes(tensor for member in members for tensor in tensors_in(list(member.state.values())))


def tensors_in(value: Any) -> list[Tensor]:
    """Every tensor in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [tensor for part in value for tensor in tensors_in(part)]
    return []


def nbytes(tensors: Iterable[Tensor | None]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)


def cast_numbers(model: GPT, sliced: bool) -> int:
    """Weights of which mixed precision keeps a copy in the type of the products.

    Those of every linear layer; the router stays in fp32, and a head whose loss is computed in slices
    gives its copy back at once.
    """
    routers = {id(m.router) for m in model.modules() if hasattr(m, "router")}  # pyright: ignore
    left_out = routers | ({id(model.head)} if sliced else set())
    layers = [
        m for m in model.modules() if isinstance(m, nn.Linear | GroupedLinear) and id(m) not in left_out
    ]
    return sum(p.numel() for layer in layers for p in layer.parameters(recurse=False))
