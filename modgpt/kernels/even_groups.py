"""Groups of rows filled up with zeros to a multiple of `EVEN`.

Reason: in bf16 the CPU's library compiles a kernel for every new number of rows, and the experts of a
mixture have new numbers of rows at every step: that takes most of the time, and hundreds of megabytes.
Rule: in bf16 on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

EVEN = 64  # rows


def is_faster(x: Tensor) -> bool:
    """Whether to fill up groups of the rows of x."""
    narrow = torch.is_autocast_enabled("cpu") or x.dtype == torch.bfloat16
    return x.device.type == "cpu" and narrow


def in_even_groups(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, ends: Tensor) -> Tensor:
    """function(x, ends), computed on groups of even sizes: x (N,C), ends (E,) int32 -> (N,·)."""
    counts = ends.diff(prepend=ends.new_zeros(1))
    room = counts.add(EVEN - 1).div(EVEN, rounding_mode="floor") * EVEN
    ends_even = room.cumsum(0)
    moved = (ends_even - room) - (ends - counts)  # how far each group's rows make way
    place = torch.arange(len(x), device=x.device) + moved.repeat_interleave(counts, output_size=len(x))
    filled = x.new_zeros(int(ends_even[-1]), x.shape[1]).index_copy(0, place, x)
    return function(filled, ends_even.int()).index_select(0, place)
