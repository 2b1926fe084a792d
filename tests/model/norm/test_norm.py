"""Every norm against its reference."""

from __future__ import annotations

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from modgpt.config.search import options
from tests.reference import (
    NORM,
    assert_same,
    assert_same_gradients,
    component,
    configured,
    knobs_of,
    reference_of,
)

every_option = pytest.mark.parametrize("option", options("norm"))


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def as_built(option: str) -> torch.nn.Module:
    """The norm of width 24, its weights as its constructor leaves them."""
    return instantiate(configured("norm", option))(24)


@every_option
def test_there_is_a_reference(option: str) -> None:
    assert option in NORM, f"norm={option} needs an entry in tests/reference.py: NORM"


# An eps as large as the squares themselves tells whether it stands inside the root.
@pytest.mark.parametrize("eps", [None, 1.0])
@pytest.mark.parametrize("shape", [(2, 5, 24), (3, 2, 5, 8), (7, 1), (9,)], ids=str)
@every_option
def test_outputs_and_gradients(option: str, shape: tuple[int, ...], eps: float | None) -> None:
    node = configured("norm", option, **({} if eps is None else {"eps": eps}))
    assert option == "none" or node.eps is not None, (
        "without an eps the dtype decides, and bf16 decides otherwise"
    )
    module = component(node, shape[-1])
    # A row of its own size each, and away from a mean of 0.
    x = (inputs(*shape) * torch.rand(*shape[:-1], 1) * 3 + 0.5).requires_grad_()
    fast, slow = (
        module(x),
        reference_of("norm", option)(x, module.state_dict(keep_vars=True), **knobs_of(node)),
    )
    assert_same(fast, slow, "output")
    assert_same_gradients(fast, slow, {"x": x, **dict(module.named_parameters())})
    with torch.no_grad():
        assert_same(module(x.detach()), slow, "output where no gradient is wanted")
    fixed = module(x.detach())  # an input that is not trained, weights that are
    if weights := dict(module.named_parameters()):
        assert_same_gradients(fixed, slow, weights)


def test_layernorm_with_bias() -> None:
    node = configured("norm", "layernorm", bias=True)
    module, x = component(node, 24), inputs(5, 24)
    assert "bias" in module.state_dict()
    assert_same(module(x), NORM["layernorm"](x, module.state_dict(), **knobs_of(node)), "output")


@every_option
def test_zero_stays_zero(option: str) -> None:
    module, x = component(configured("norm", option), 24), torch.zeros(2, 24, requires_grad=True)
    y = module(x)
    assert torch.equal(y, torch.zeros_like(y))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("option", ["layernorm", "rmsnorm", "scalenorm"])
def test_starts_with_a_mean_square_of_one(option: str) -> None:
    """As built, before any training: ScaleNorm's g at 1 would silence the layer behind it."""
    y = as_built(option)(inputs(50, 24))
    assert y.square().mean().item() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("option", ["layernorm", "rmsnorm", "scalenorm"])
def test_scale_of_the_input_does_not_matter(option: str) -> None:
    module, x = as_built(option), inputs(5, 24)
    torch.testing.assert_close(module(1000 * x), module(x), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # a slower kernel, the same norm
@pytest.mark.parametrize("trained", [False, True])
@every_option
def test_bf16_is_near_fp32(option: str, trained: bool) -> None:
    """As queries and keys are normed in training: (B,H,T,D), not contiguous."""
    module = as_built(option)
    x = inputs(2, 5, 3, 24).bfloat16().transpose(1, 2).requires_grad_(trained)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    wide = x.detach().float().requires_grad_()
    wanted = module(wide)
    torch.testing.assert_close(y.float(), wanted, rtol=1e-2, atol=1e-2)
    if trained:
        toward = inputs(*y.shape)
        (got,) = torch.autograd.grad((y.float() * toward).sum(), x)
        (slow,) = torch.autograd.grad((wanted * toward).sum(), wide)
        torch.testing.assert_close(got.float(), slow, rtol=2e-2, atol=2e-2)
