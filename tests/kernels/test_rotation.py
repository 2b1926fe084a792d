"""Rotation by products is the definition of RoPE for every vector; what it remembers is its own."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from modgpt.kernels.rotation import RotationByProduct
from modgpt.model.pos.rope import frequencies, rotary
from modgpt.testing.parts import by_formula


def inputs(length: int, width: int) -> Tensor:
    return torch.randn(2, 3, length, width, generator=torch.Generator().manual_seed(0))


PLAIN: dict[str, Any] = {"theta": 10000.0, "scaling": None, "factor": 1.0, "trained": 64}


def by_definition(x: Tensor, positions: Tensor, **knobs: Any) -> Tensor:
    return by_formula(lambda vector, t: rotary(vector, t, **knobs), x, positions)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("interleaved", [False, True], ids=["halves", "neighbours"])
@pytest.mark.parametrize("theta", [100.0, 10000.0])
@pytest.mark.parametrize("positions", [torch.arange(9), torch.tensor([300])], ids=["many", "one"])
def test_outputs_and_gradients(
    positions: Tensor, theta: float, interleaved: bool, fraction: float, dtype: torch.dtype
) -> None:
    own, form = (
        PLAIN | {"theta": theta},
        {"fraction": fraction, "interleaved": interleaved, "stretch": 1.5},
    )
    x = inputs(len(positions), 8).to(dtype).requires_grad_()
    fast = RotationByProduct(partial(frequencies, **own), **form)(x, positions)
    slow = by_definition(x, positions, **own, **form)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    torch.testing.assert_close(fast, slow, rtol=tolerance, atol=tolerance)
    toward = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    got, wanted = (torch.autograd.grad(y, x, toward)[0] for y in (fast, slow))
    torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


def test_it_remembers_the_tables_of_no_other_positions() -> None:
    form = {"fraction": 1.0, "interleaved": False, "stretch": 1.0}
    rotation, same = RotationByProduct(partial(frequencies, **PLAIN)), torch.arange(3)
    cases = [(torch.arange(5), 8), (torch.arange(5) + 3, 8), (torch.arange(2), 4), (same, 8), (same, 4)]
    for positions, width in cases:
        x = inputs(len(positions), width)
        for _ in range(2):  # computed, then remembered
            torch.testing.assert_close(
                rotation(x, positions), by_definition(x, positions, **PLAIN, **form)
            )
