"""Declared costs against counted ones: parameters, FLOPs of the definition, bytes of the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modgpt.model.definition import defined
from modgpt.testing.attention import AttentionPair
from modgpt.testing.build import Make, component
from modgpt.testing.parts import inputs


def count(module: nn.Module) -> int:
    """The number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def flops_of(function: Callable[..., Any], *args: Any) -> int:
    """FLOPs of the matrix products in one call."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*args)
    return counter.get_total_flops()


def assert_declared(declared: float, counted: float, what: str) -> None:
    """Equal but for rounding."""
    assert abs(declared - counted) <= 1e-6 * max(1, counted), (
        f"cost() declares {what} {declared:,}, counted are {counted:,}"
    )


def check_attention_cost(make: Make, length: int) -> None:
    """An attention declares its parameters, FLOPs per token and state after `length` tokens."""
    pair = AttentionPair(make, n_heads=4, d_model=32)
    cost, x = pair.module.cost(length), pair.inputs(length, batch=1)
    assert_declared(cost.parameters, count(pair.module), "parameters")
    assert_declared(cost.active_parameters, count(pair.module), "active_parameters")
    assert_declared(cost.flops, flops_of(pair.slow, x) / length, "flops")
    with torch.no_grad():
        _, state = pair.fast(x, pair.module.initial_state(1, capacity=length))
    assert_declared(cost.state, state.nbytes / 4, "state")


def check_ffn_cost(make: Make, d_model: int = 32) -> None:
    """A feed-forward declares its parameters, those that one token moves, and FLOPs per token."""
    module = component(make, d_model=d_model)
    cost = module.cost(8)
    assert_declared(cost.parameters, count(module), "parameters")
    assert_declared(cost.flops, flops_of(defined(module), inputs(1, 1, d_model)), "flops")
    with torch.no_grad():  # positive numbers, so that no activation is flat
        for parameter in module.parameters():
            parameter.abs_()
    y, aux = module(0.1 * inputs(1, 1, d_model).abs())
    (y.square().sum() + sum(value.sum() for name, value in aux.items() if name == "loss")).backward()
    moved = sum(int((parameter.grad != 0).sum()) for parameter in module.parameters())
    assert_declared(cost.active_parameters, moved, "active_parameters")
