"""The short convolution against its definition and PyTorch's, in one pass and token by token."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modgpt.model.attention.short_convolution import ShortConvolution
from modgpt.model.definition import defined
from modgpt.model.init import Initializer
from modgpt.testing.build import component
from modgpt.testing.compare import assert_same, assert_same_gradients

CHANNELS = 6
DTYPES = [torch.float32, torch.float64]
every_width = pytest.mark.parametrize("width", [1, 2, 4])


def convolution(width: int, dtype: torch.dtype = torch.float32, bias: bool = True) -> ShortConvolution:
    return component(ShortConvolution, CHANNELS, width, bias=bias).to(dtype)


def inputs(length: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, length, CHANNELS, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("length", [1, 2, 9])
@every_width
def test_outputs_gradients_and_inputs_kept(
    width: int, length: int, bias: bool, dtype: torch.dtype
) -> None:
    module, x = convolution(width, dtype, bias), inputs(length, dtype).requires_grad_()
    (fast, kept), (slow, wanted) = module(x), defined(module)(x)
    assert_same(fast, slow, "output")
    assert_same(kept, wanted, "inputs")
    assert kept.shape == (2, width - 1, CHANNELS)
    assert_same_gradients(fast, slow, {"x": x, **dict(module.named_parameters())})


@every_width
def test_is_that_of_torch(width: int) -> None:
    module, x = convolution(width), inputs(9)
    other = nn.Conv1d(CHANNELS, CHANNELS, width, groups=CHANNELS, padding=width - 1)
    other.load_state_dict(module.state_dict())
    assert_same(module(x)[0], F.silu(other(x.mT)[:, :, :9].mT), "output")


@pytest.mark.parametrize("pieces", [[1] * 9, [4, 5], [2, 1, 6]], ids=str)
@every_width
def test_in_pieces(width: int, pieces: list[int]) -> None:
    module, x = convolution(width), inputs(9)
    past, ys = module.no_past(2), []
    with torch.no_grad():
        for piece in x.split(pieces, dim=1):
            y, past = module(piece, past)
            assert past.untyped_storage().nbytes() == past.nbytes, "it holds no more than it says"
            ys.append(y)
    assert_same(torch.cat(ys, dim=1), module(x)[0], "output")


def test_no_output_depends_on_later_inputs() -> None:
    x = inputs(9).requires_grad_()
    (gradient,) = torch.autograd.grad(convolution(4)(x)[0][:, 5].sum(), x)
    assert (gradient.abs().sum((0, 2)) > 0).tolist() == [2 <= t <= 5 for t in range(9)]


def test_inputs_are_kept_in_the_precision_of_the_weights() -> None:
    module = convolution(4)
    with torch.autocast("cpu", torch.bfloat16):
        y, past = module(inputs(5).bfloat16())
    assert (y.dtype, past.dtype) == (torch.bfloat16, torch.float32)


def test_initial_weights() -> None:
    module = ShortConvolution(1000, 4, bias=True)
    module.reset_parameters(Initializer(module))
    assert module.bias is not None and not module.bias.any()
    assert 0.499 < module.weight.max() <= 0.5 and -0.5 <= module.weight.min() < -0.499
    assert module.weight.mean().item() == pytest.approx(0, abs=0.02)
