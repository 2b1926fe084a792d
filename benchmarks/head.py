"""The head of a large vocabulary and its loss: in slices, the plain way, and PyTorch's function."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.rounds import Row, Turn, alternate
from modgpt.kernels.head_loss import head_loss

N, C, V = 2048, 128, 8192  # 32 windows of 64, the default width, a BPE vocabulary
BASELINE = "the products alone"


def products(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.linear(x, weight)


def plain(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(x, weight).float(), targets)


def in_slices(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return head_loss(x, weight, targets, ignored=-100)


def of_pytorch(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    enabled = torch.is_autocast_enabled("cpu")
    x, weight = (t.to(torch.get_autocast_dtype("cpu")) if enabled else t for t in (x, weight))
    options = nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(x, weight, targets, options=options)


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    BASELINE: products,
    "in slices": in_slices,
    "the plain way": plain,
    "PyTorch's linear_cross_entropy": of_pytorch,
}


def head(rounds: int) -> list[Row]:
    """Milliseconds forwards and backwards by precision, and the time relative to the products.

    Args:
        rounds: turns of each way.
    """
    rows = []
    for bf16 in (False, True):
        turns = {name: partial(turn_of, name, bf16) for name in WAYS}
        rows += [
            {
                "precision": "bf16" if bf16 else "fp32",
                "way": row["contestant"],
                "ms": 1000 / row["per second"],
                "time / products": 1 / row["ratio"],
            }
            for row in alternate(turns, rounds, BASELINE)
        ]
    return rows


def turn_of(name: str, bf16: bool) -> Turn:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, C, generator=generator) for n in (N, V))
    weight *= 0.02  # as at the start of a training
    x.requires_grad_()
    weight.requires_grad_()
    targets = torch.randint(V, (N,), generator=generator)
    return partial(speed, WAYS[name], x, weight, targets, bf16)


def speed(
    way: Callable[[Tensor, Tensor, Tensor], Tensor],
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    bf16: bool,
    calls: int = 5,
) -> float:
    """Calls per second, with their backward passes, after one that is not counted."""
    start = 0.0
    for i in range(calls + 1):
        if i == 1:
            start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = way(x, weight, targets)
        torch.autograd.grad(y, [x, weight], torch.ones_like(y))
    return calls / (time.perf_counter() - start)
