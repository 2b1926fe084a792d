"""Decoding state: what a model keeps of the tokens it has read.

State is a value, passed to `decode` and returned by it. A step may write into the buffers of the state
it was given, and so consumes it; `clone()` first to branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from torch import Tensor


def _clone(value: Any) -> Any:
    if isinstance(value, Tensor | State):
        return value.clone()
    return [_clone(v) for v in value] if isinstance(value, list) else value


def _nbytes(value: Any) -> int:
    if isinstance(value, Tensor | State):
        return value.nbytes
    return sum(map(_nbytes, value)) if isinstance(value, list) else 0


@dataclass
class State:
    """A dataclass of tensors and plain values, with a size and a copy."""

    def clone(self) -> Self:
        """A copy that shares no memory with this state."""
        return replace(self, **{f.name: _clone(getattr(self, f.name)) for f in fields(self)})

    @property
    def nbytes(self) -> int:
        """Bytes held in tensors, unused capacity included."""
        return sum(_nbytes(getattr(self, f.name)) for f in fields(self))


@dataclass
class ModelState(State):
    """`length` tokens read so far, and one attention state per layer."""

    length: int
    layers: Sequence[State | None]
