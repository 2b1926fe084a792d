"""No norm: what turns a norm off where one could stand."""

from __future__ import annotations

from torch import Tensor, nn


def no_norm(x: Tensor) -> Tensor:
    """x."""
    return x


class NoNorm(nn.Identity):
    """The identity."""

    definition = staticmethod(no_norm)
