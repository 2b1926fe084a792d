"""The nonlinearities of the feed-forward layers: their definitions, and the functions that are used."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


def gelu(a: Tensor) -> Tensor:
    """a·Φ(a), Φ the distribution function of the normal distribution (Hendrycks & Gimpel 2016)."""
    return a * 0.5 * (1 + torch.erf(a / math.sqrt(2)))


def gelu_tanh(a: Tensor) -> Tensor:
    """GELU with Φ approximated by a tanh, as in GPT-2."""
    return a * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3)))


def relu(a: Tensor) -> Tensor:
    """max(a, 0)."""
    return torch.where(a > 0, a, 0.0)


def relu_squared(a: Tensor) -> Tensor:
    """max(a, 0)² (So et al. 2021, Primer)."""
    return torch.where(a > 0, a, 0.0) ** 2


def silu(a: Tensor) -> Tensor:
    """a·sigmoid(a)."""
    return a / (1 + torch.exp(-a))


# PyTorch's function for each definition, by its name.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu_squared": lambda a: F.relu(a).square(),
    "silu": F.silu,
}


def activation_named(name: str) -> Callable[[Tensor], Tensor]:
    """One of `ACTIVATIONS`, or a `ValueError` that lists them."""
    if name not in ACTIVATIONS:
        raise ValueError(f"ffn.activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]
