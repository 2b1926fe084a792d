"""Comparing tensors and their gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# Relative and absolute tolerance of sums in that precision.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def assert_same(got: Tensor, wanted: Tensor, what: str) -> None:
    """Equal to within the rounding of the tensor's precision.

    Raises:
        AssertionError: they are not.
    """
    tolerance = TOLERANCE[got.dtype]
    torch.testing.assert_close(
        got, wanted, rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}"
    )


def assert_same_gradients(got: Tensor, wanted: Tensor, of: Mapping[str, Tensor]) -> None:
    """Equal gradients with respect to every tensor in `of`, for a random gradient of the output.

    Raises:
        AssertionError: one of them is not.
    """
    toward = torch.randn(got.shape, generator=torch.Generator().manual_seed(1), dtype=got.dtype)
    ours, theirs = (
        torch.autograd.grad(y, list(of.values()), toward, retain_graph=True, materialize_grads=True)
        for y in (got, wanted)
    )
    for name, one, other in zip(of, ours, theirs, strict=True):
        assert_same(one, other, f"gradient of {name}")


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference, relative to that of what is wanted."""
    got, wanted = got.detach().double(), wanted.detach().double()
    return float((got - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())
