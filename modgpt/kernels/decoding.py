"""Decoding one token at a time on a CPU, without what calling small operations costs.

Reason: a third of the time is the matrices' way from memory, the rest is calling (docs/performance.md).
Rule: while text is generated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def modules_as_attributes(model: nn.Module) -> Iterator[None]:
    """Let all modules have their parts and parameters as plain attributes.

    `nn.Module` looks those up in Python, after Python itself has not found them: a tenth of the time
    that a single token takes.
    """
    modules = list(model.modules())
    for module in modules:
        vars(module).update(module._modules | module._parameters)
    try:
        yield
    finally:
        for module in modules:
            for name in (*module._modules, *module._parameters):
                vars(module).pop(name, None)


@contextmanager
def without_onednn(dtype: torch.dtype) -> Iterator[None]:
    """Switch oneDNN off: for one token it takes longer to prepare a kernel than to run it.

    It stays on where products in bf16 are its own: in a model of that type, and under autocast.
    """
    before = torch.backends.mkldnn.enabled
    narrow = dtype != torch.float32 or torch.is_autocast_enabled("cpu")
    torch.backends.mkldnn.enabled = before and narrow
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before
