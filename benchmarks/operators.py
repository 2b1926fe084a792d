"""Single operations of a training step, forward and backward: ours compared with PyTorch's."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import SIZES, Size
from benchmarks.rounds import Row, Turn, alternate
from modgpt.kernels import attention_products
from modgpt.model.ffn.base import DenseFeedForward
from modgpt.model.norm.rmsnorm import RMSNorm
from modgpt.model.pos.rope import RotaryPosition
from modgpt.testing.build import is_a, options_of

SCORES_AT_ONCE = attention_products.SCORES_AT_ONCE

# The variants of each operation. Ratios are relative to the first one.
OPERATIONS = {
    "norm": ("layer norm", "RMSNorm, PyTorch's", "RMSNorm"),
    "attention": ("products", "products of all sequences at once", "the fused kernel"),
    "rotation": ("none", "RoPE", "RoPE, elementwise"),
    "ffn": tuple(name for name, make in options_of("ffn").items() if is_a(make, DenseFeedForward)),
}


def operators(size_name: str, rounds: int, steps: int) -> list[Row]:
    """Milliseconds of one layer's operations, forward and backward, in bf16 (norms in fp32).

    Args:
        size_name: one of `SIZES`.
        rounds: turns of each variant.
        steps: calls per turn.
    """
    rows = []
    for operation, names in OPERATIONS.items():
        turns: dict[str, Callable[[], Turn]] = {
            name: partial(turn_of, operation, name, SIZES[size_name], steps) for name in names
        }
        rows += [
            {"operation": operation, "as": row["contestant"], "ms": 1000 / row["per second"],
             "time / first": 1 / row["ratio"]}
            for row in alternate(turns, rounds, names[0])
        ]  # fmt: skip
    return rows


def turn_of(operation: str, name: str, size: Size, calls: int) -> Turn:
    torch.manual_seed(0)
    call, inputs = OPERATION[operation](name, size)
    return partial(speed, call, inputs, calls)


def speed(call: Callable[[], Tensor], inputs: list[Tensor], calls: int) -> float:
    """Calls per second, including their backward passes."""
    start = 0.0
    for i in range(calls + 2):
        if i == 2:  # after two warm-up calls
            start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            y = call()
        torch.autograd.grad(y, inputs, torch.ones_like(y))
    return calls / (time.perf_counter() - start)


def norm(name: str, size: Size) -> tuple[Callable[[], Tensor], list[Tensor]]:
    kinds = {"layer norm": partial(nn.LayerNorm, bias=False), "RMSNorm, PyTorch's": nn.RMSNorm}
    module = kinds.get(name, RMSNorm)(size.d_model, eps=1e-5)
    x = torch.randn(size.batch_size, size.block_size, size.d_model, requires_grad=True)
    return partial(module, x), [x, *module.parameters()]


def attention(name: str, size: Size) -> tuple[Callable[[], Tensor], list[Tensor]]:
    q, k, v = (heads(size) for _ in range(3))
    if name == "the fused kernel":
        return partial(F.scaled_dot_product_attention, q, k, v, is_causal=True), [q, k, v]
    at_once = SCORES_AT_ONCE if name == "products" else 2**62

    def call() -> Tensor:
        attention_products.SCORES_AT_ONCE = at_once
        return attention_products.scaled_dot_product_attention(q, k, v, is_causal=True)

    return call, [q, k, v]


def rotation(name: str, size: Size) -> tuple[Callable[[], Tensor], list[Tensor]]:
    sizes = {"d_model": size.d_model, "n_heads": size.n_heads, "block_size": size.block_size}
    pos = RotaryPosition(**sizes, init_std=0.02)
    qk = torch.cat([heads(size), heads(size)], dim=1).detach().requires_grad_()
    positions = torch.arange(size.block_size)
    matrices = pos.rotation.matrices(positions, size.d_model // size.n_heads, torch.float32)
    cos, sin = matrices.diagonal(dim1=1, dim2=2), matrices.sum(1)
    sin = sin - cos  # negative for the first half
    calls: dict[str, Callable[[], Tensor]] = {
        "none": lambda: qk * 1,
        "RoPE": lambda: pos.rotate(qk, positions) * 1,
        "RoPE, elementwise": lambda: elementwise(qk, cos, sin) * 1,
    }
    return calls[name], [qk]


def elementwise(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(a·cos − b·sin, b·cos + a·sin): the roll swaps the halves; sin (T,D) includes the sign."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin).type_as(x)


def ffn(name: str, size: Size) -> tuple[Callable[[], Tensor], list[Tensor]]:
    module = options_of("ffn")[name](d_model=size.d_model)
    x = torch.randn(size.batch_size, size.block_size, size.d_model, requires_grad=True)
    return lambda: module(x)[0], [x, *module.parameters()]


def heads(size: Size) -> Tensor:
    """(B,H,T,D) with the memory layout of the projection, (B,T,H,D)."""
    shape = (size.batch_size, size.block_size, size.n_heads, size.d_model // size.n_heads)
    return torch.randn(shape, dtype=torch.bfloat16).transpose(1, 2).requires_grad_()


OPERATION = {"norm": norm, "attention": attention, "rotation": rotation, "ffn": ffn}
