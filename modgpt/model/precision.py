"""Numbers that need at least fp32, whatever the precision of a model."""

from __future__ import annotations

import torch
from torch import Tensor


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp64 for fp64, fp32 for everything narrower."""
    return torch.promote_types(dtype, torch.float32)


def wide(x: Tensor) -> Tensor:
    """x in fp32, or in fp64 if it is fp64 already."""
    return x.to(wide_dtype(x.dtype))
