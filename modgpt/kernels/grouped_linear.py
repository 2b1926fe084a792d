"""E linear layers as one grouped matrix product.

Reason: one call instead of one per expert, and no wait for the number of rows of each.
Rule: always but in fp64, which PyTorch's `grouped_mm` refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor


def is_possible(x: Tensor) -> bool:
    """Whether this kernel can be used for x."""
    return x.dtype != torch.float64


def grouped_linear(x: Tensor, ends: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Each group of rows times its own weights: x (N,in), ends (E,) -> (N,out).

    The product wants rows of a multiple of 16 bytes; others are filled up with zeros.
    """
    return product(x, ends, weight, bias)


def eager_product(x: Tensor, ends: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`grouped_linear`, for the compiler to leave alone."""
    n_out = weight.shape[1]
    if torch.is_autocast_enabled(x.device.type):  # autocast does not know grouped_mm
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
    missing_out, missing_in = (-size % 8 for size in weight.shape[1:])
    if missing_out or missing_in:
        x, weight = F.pad(x, (0, missing_in)), F.pad(weight, (0, missing_in, 0, missing_out))
    y = F.grouped_mm(x, weight.mT, offs=ends)[:, :n_out]
    if bias is None:
        return y
    counts = ends.diff(prepend=ends.new_zeros(1))
    return y + bias.to(y.dtype).repeat_interleave(counts, dim=0, output_size=len(y))


# The compiler believes that grouped_mm takes nothing but bf16.
product = cast("Callable[..., Tensor]", torch.compiler.disable(eager_product))
