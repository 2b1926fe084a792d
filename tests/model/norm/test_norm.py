"""Every norm against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modgpt.testing.build import Make, component, options_of, variants
from modgpt.testing.parts import check_norm_definition

OPTIONS = options_of("norm")
NORMS = {name: make for name, make in OPTIONS.items() if not isinstance(make(8), nn.Identity)}
SCALING = {name: make for name, make in NORMS.items() if name != "dyt"}  # which takes no statistic

every_option = pytest.mark.parametrize("make", OPTIONS.values(), ids=OPTIONS)
every_norm = pytest.mark.parametrize("make", NORMS.values(), ids=NORMS)
every_scaling_norm = pytest.mark.parametrize("make", SCALING.values(), ids=SCALING)
every_case = pytest.mark.parametrize(
    "make",
    [
        pytest.param(variant, id=f"{option}-{n}")
        for option, make in OPTIONS.items()
        for n, variant in enumerate(variants(make))
    ],
)


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(2, 5, 24), (3, 2, 5, 8), (7, 1), (9,)], ids=str)
@every_case
def test_outputs_and_gradients(make: Make, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check_norm_definition(make, *shape, dtype=dtype)


@every_norm
def test_eps_is_given(make: Make) -> None:
    """Without an eps the dtype decides, and bf16 decides otherwise."""
    assert getattr(make(8), "eps", 1.0) is not None


@every_option
def test_zero_stays_zero(make: Make) -> None:
    module, x = component(make, 24), torch.zeros(2, 24, requires_grad=True)
    for parameter in module.parameters():
        torch.nn.init.ones_(parameter)
    y = module(x)
    assert torch.equal(y, torch.zeros_like(y))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.isfinite().all()


@every_scaling_norm
def test_starts_with_a_mean_square_of_one(make: Make) -> None:
    """As built, before any training: ScaleNorm's g at 1 would silence the layer behind it."""
    y = make(24)(inputs(50, 24))
    assert y.square().mean().item() == pytest.approx(1, rel=1e-3)


@every_scaling_norm
def test_scale_of_the_input_does_not_matter(make: Make) -> None:
    module, x = make(24), inputs(5, 24)
    torch.testing.assert_close(module(1000 * x), module(x), rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # a slower kernel, the same norm
@pytest.mark.parametrize("trained", [False, True])
@every_option
def test_bf16_is_near_fp32(make: Make, trained: bool) -> None:
    """As queries and keys are normed in training: (B,H,T,D), not contiguous."""
    module = make(24)
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


def test_dynamic_tanh_is_bounded_and_starts_linear() -> None:
    module, x = OPTIONS["dyt"](24), inputs(5, 24)
    torch.testing.assert_close(module(1e6 * x), x.sign(), msg="large elements end at ±γ")
    torch.testing.assert_close(module(1e-3 * x), 0.5e-3 * x, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan")])
def test_alpha_is_positive(alpha: float) -> None:
    with pytest.raises(ValueError, match=f"norm.alpha must be positive, got {alpha}"):
        OPTIONS["dyt"](24, alpha=alpha)


def test_a_zero_centred_gain_is_one_at_the_start_and_the_same_norm() -> None:
    plain, centred, x = OPTIONS["rmsnorm"](24), OPTIONS["rmsnorm"](24, zero_centred=True), inputs(5, 24)
    assert torch.count_nonzero(centred.weight) == 0
    torch.testing.assert_close(centred(x), plain(x))
