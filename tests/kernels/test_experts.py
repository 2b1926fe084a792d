"""Grouped products and even groups are what a loop over the experts is."""

from __future__ import annotations

import pytest
import torch

from modgpt.kernels import even_groups, grouped_linear
from modgpt.model.ffn.moe import MixtureOfExperts, linear_by_group
from modgpt.model.ffn.swiglu import SwiGLUFeedForward

# Groups of no rows among them, at the beginning, in the middle and at the end.
ENDS = [[0, 3, 3, 10], [64, 64, 65, 130], [7, 7, 7, 7]]


def parts(ends: list[int], n_in: int, n_out: int, bias: bool) -> list[torch.Tensor]:
    """Rows, weights and biases of four experts that all want gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(ends[-1], n_in), (4, n_out, n_in), *([(4, n_out)] if bias else [])]
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sizes", [(8, 16), (24, 11), (5, 8), (3, 3)], ids=str)
@pytest.mark.parametrize("ends", ENDS, ids=str)
def test_grouped_products_equal_a_loop(ends: list[int], sizes: tuple[int, int], bias: bool) -> None:
    x, weight, *biases = tensors = parts(ends, *sizes, bias)
    results = []
    for function in (grouped_linear.grouped_linear, linear_by_group):
        y = function(x, torch.tensor(ends, dtype=torch.int32), weight, biases[0] if bias else None)
        results.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
    for fast, plain in zip(*results, strict=True):
        # Gradients are sums of up to 130 products of numbers up to 100, in another order.
        torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("ends", ENDS, ids=str)
def test_even_groups_change_nothing(ends: list[int]) -> None:
    tensors = parts(ends, 8, 16, bias=True)
    x, weight, bias = tensors

    def function(rows: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        sizes.append(ends.diff(prepend=ends.new_zeros(1)).tolist())
        return linear_by_group(rows, ends, weight, bias)

    sizes: list[list[int]] = []
    ends_of = torch.tensor(ends, dtype=torch.int32)
    results = []
    for y in (function(x, ends_of), even_groups.in_even_groups(function, x, ends_of)):
        results.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
    for plain, filled in zip(*results, strict=True):
        torch.testing.assert_close(filled, plain, rtol=1e-5, atol=1e-5)
    assert all(size % even_groups.EVEN == 0 for size in sizes[1]) and sizes[1] != sizes[0]


def test_a_mixture_fills_up_its_groups_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    module = MixtureOfExperts(expert=SwiGLUFeedForward, d_model=24)
    torch.nn.init.normal_(module.router.weight)
    for parameter in module.experts.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    calls = []
    kernel = even_groups.in_even_groups
    monkeypatch.setattr(even_groups, "in_even_groups", lambda *args: calls.append(1) or kernel(*args))
    x = torch.randn(3, 70, 24, generator=torch.Generator().manual_seed(0))
    wanted, _ = module(x)
    assert not calls
    with torch.autocast("cpu", torch.bfloat16):
        got, _ = module(x)
    assert len(calls) == 1
    torch.testing.assert_close(got.float(), wanted, rtol=0, atol=0.05 * wanted.abs().max().item())
