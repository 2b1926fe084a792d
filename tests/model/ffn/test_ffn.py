"""Every feed-forward against its reference, and what holds for a mixture of experts alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from modgpt.config.search import options
from modgpt.model.ffn import moe
from modgpt.model.ffn.base import ACTIVATIONS
from tests.reference import (
    FFN,
    assert_same,
    assert_same_gradients,
    component,
    configured,
    knobs_of,
    reference_of,
)

C = 24
# Coefficients large enough for the gradients of the auxiliary losses to show.
LOUD = {"balance_coef": 0.7, "z_coef": 0.3}
KNOBS: dict[str, list[dict[str, Any]]] = {
    "standard": [{}, {"bias": True}, {"hidden": 10}, *({"activation": a} for a in ACTIVATIONS)],
    "swiglu": [{}, {"bias": True}, {"hidden": 10}, *({"activation": a} for a in ACTIVATIONS)],
    "moe": [
        {},
        LOUD,
        {"top_k": 1, **LOUD},
        {"top_k": 3, "n_experts": 3, "hidden": 16, **LOUD},
        {"n_experts": 1, "top_k": 1, **LOUD},
        {"expert": configured("ffn", "swiglu", bias=True), "n_experts": 5},
        {"expert": configured("ffn", "standard", bias=True), "n_experts": 5},
        {"expert": configured("ffn", "standard"), "hidden": 8},
        {"hidden": 11, **LOUD},  # no whole rows: filled up for the grouped product
        {"expert": configured("ffn", "standard", bias=True, activation="relu"), "hidden": 3},
    ],
}
CASES = [
    pytest.param(option, knobs, id=f"{option}-{number}")
    for option in options("ffn")
    for number, knobs in enumerate(KNOBS.get(option, [{}]))
]

every_option = pytest.mark.parametrize("option", options("ffn"))
every_case = pytest.mark.parametrize(("option", "knobs"), CASES)


def build(option: str, **knobs: Any) -> Any:
    return component(configured("ffn", option, **knobs), d_model=C)


def inputs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


# --- every option against its reference -----------------------------------------------------------


@every_option
def test_there_is_a_reference(option: str) -> None:
    assert option in FFN, f"ffn={option} needs an entry in tests/reference.py: FFN"


@pytest.mark.parametrize("shape", [(1, 1, C), (2, 7, C), (1, 30, C)], ids=str)
@every_case
def test_outputs_and_gradients(option: str, knobs: dict[str, Any], shape: tuple[int, ...]) -> None:
    node = configured("ffn", option, **knobs)
    module, x = component(node, d_model=C), inputs(*shape).requires_grad_()
    weights = module.state_dict(keep_vars=True)
    (fast, aux), (slow, slow_aux) = module(x), reference_of("ffn", option)(x, weights, **knobs_of(node))
    assert_same(fast, slow, "output")
    assert sorted(aux) == sorted(slow_aux)
    for name in aux:
        assert_same(aux[name], slow_aux[name], name)
    of = {"x": x, **dict(module.named_parameters())}
    assert_same_gradients(fast, slow, of)
    if "loss" in aux:
        assert_same_gradients(aux["loss"], slow_aux["loss"], {"x": x, "router": module.router.weight})


@every_option
def test_default_width_matches_the_reference(option: str) -> None:
    """The width that follows from C: 4C; 8C/3 in steps of 8; or what matches active parameters."""
    wanted = {"standard": 4 * 96, "swiglu": 256, "moe": 128}
    if option not in wanted:
        pytest.skip("a width of its own")
    module = component(configured("ffn", option), d_model=96)
    down = getattr(module, "experts", module).down
    assert down.weight.shape[-1] == wanted[option]


# --- initial weights and dropout ------------------------------------------------------------------


@every_option
def test_initial_weights(option: str) -> None:
    torch.manual_seed(0)
    module = component(configured("ffn", option), d_model=96)
    module.reset_parameters(std=0.02, residual_std=0.005)
    for name, weight in module.named_parameters():
        wanted = 0.005 if "down" in name else 0.02
        assert weight.std().item() == pytest.approx(wanted, rel=0.1), name


@every_case
def test_silent_start(option: str, knobs: dict[str, Any]) -> None:
    """With a residual_std of 0 the branch adds nothing: biases are zero, too."""
    module = build(option, **knobs)
    module.reset_parameters(std=0.02, residual_std=0.0)
    assert not module(inputs(2, 7, C))[0].any()


@every_option
def test_dropout_acts_once(option: str) -> None:
    """Each element of the output is dropped, or scaled up; nothing inside is touched."""
    torch.manual_seed(0)
    module, x = build(option), inputs(2, 50, C)
    module.dropout = 0.5
    with torch.no_grad():
        whole, dropped = module.eval()(x)[0], module.train()(x)[0]
    gone = dropped == 0
    assert 0.4 < gone.float().mean() < 0.6
    assert_same(dropped[~gone], 2 * whole[~gone], "what is left")


@every_option
def test_bf16_is_near_fp32(option: str) -> None:
    module, x = build(option), inputs(2, 7, C).requires_grad_()
    wanted = module(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        got = module(x)[0]
    assert got.dtype == torch.bfloat16
    error = (got - wanted).square().mean().sqrt() / wanted.square().mean().sqrt()
    assert error < 0.03
    got.float().square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


# --- mixture of experts ---------------------------------------------------------------------------


def with_equal_experts(module: Any) -> Any:
    with torch.no_grad():
        for parameter in module.experts.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter))
    return module


@pytest.mark.parametrize("top_k", [1, 2, 5])
def test_equal_experts_are_one(top_k: int) -> None:
    """No token is dropped and gates sum to 1: whoever is chosen, the answer is the same."""
    module, x = with_equal_experts(build("moe", top_k=top_k)), inputs(3, 40, C)
    own = {name: w[0] for name, w in module.experts.state_dict().items()}
    assert_same(module(x)[0], FFN["swiglu"](x, own)[0], "output")


def test_a_full_house_drops_no_token() -> None:
    """All tokens to the same two experts: no capacity cuts any of them off."""
    module = with_equal_experts(build("moe"))
    x = inputs(3, 40, C).abs()
    favour(module, 2, 5)
    own = {name: w[0] for name, w in module.experts.state_dict().items()}
    y, aux = module(x)
    assert aux["expert_load"].tolist() == [0, 0, 0.5, 0, 0, 0.5, 0, 0]
    assert_same(y, FFN["swiglu"](x, own)[0], "output")


def favour(module: Any, *experts: int) -> None:
    """Make the router send every token of positive elements to these experts."""
    with torch.no_grad():
        module.router.weight.fill_(-0.1)
        module.router.weight[list(experts)] = 0.1


@pytest.mark.parametrize("bias", [False, True])
def test_empty_experts_get_zero_gradients(bias: bool) -> None:
    module = build("moe", expert=configured("ffn", "swiglu", bias=bias))
    favour(module, 2, 5)
    y, aux = module(inputs(2, 7, C).abs())
    (y.square().mean() + aux["loss"]).backward()
    for name, parameter in module.experts.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        busy = parameter.grad.flatten(1).abs().sum(1) > 0
        assert busy.tolist() == [e in (2, 5) for e in range(8)], name


def test_an_untouched_router_gives_a_balance_loss_of_one() -> None:
    module = build("moe")
    torch.nn.init.zeros_(module.router.weight)
    _, aux = module(inputs(2, 7, C))
    assert aux["balance_loss"].item() == pytest.approx(1)


def test_a_collapsed_router_gives_a_balance_loss_of_the_number_of_experts() -> None:
    module = build("moe", top_k=1)
    favour(module, 3)
    _, aux = module(1000 * inputs(2, 7, C).abs())
    assert aux["balance_loss"].item() == pytest.approx(8)


@pytest.mark.parametrize("top_k", [1, 2, 8])
def test_loads_sum_to_one(top_k: int) -> None:
    load = build("moe", top_k=top_k)(inputs(3, 40, C))[1]["expert_load"]
    assert load.shape == (8,)
    assert load.sum().item() == pytest.approx(1)
    assert load.max() <= 1 / top_k + 1e-6, "no token counts twice for one expert"


def test_loss_is_the_weighted_sum() -> None:
    _, aux = build("moe", balance_coef=0.7, z_coef=0.3)(inputs(2, 7, C))
    wanted = 0.7 * aux["balance_loss"] + 0.3 * aux["router_z_loss"]
    assert_same(aux["loss"], wanted, "loss")
    assert not build("moe", balance_coef=0.0, z_coef=0.0)(inputs(2, 7, C))[1]["loss"].any()


def test_routes_in_bf16_as_in_fp32() -> None:
    """The router works in fp32: rounding must not send a token to another expert."""
    module, x = build("moe"), inputs(8, 200, C)
    _, wanted = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        _, got = module(x)
    for name in wanted:
        assert torch.equal(got[name], wanted[name]), name


@pytest.mark.parametrize("expert", ["standard", "swiglu"])
def test_moe_with_groups_filled_up_is_the_same(expert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the CPU does in bf16, held in fp32 to what it does otherwise: outputs and gradients."""
    node = configured("ffn", "moe", expert=configured("ffn", expert, bias=True))
    module = component(node, d_model=C)
    x = torch.randn(3, 70, C, generator=torch.Generator().manual_seed(0)).requires_grad_()
    results = []
    for even in (False, True):
        monkeypatch.setattr(moe, "wants_even_groups", lambda x, even=even: even)
        y, _ = module(x)
        gradients = torch.autograd.grad(y.square().sum(), [x, *module.experts.parameters()])
        results.append([y, *gradients])
    for plain, filled in zip(*results, strict=True):
        torch.testing.assert_close(filled, plain, rtol=1e-5, atol=1e-6)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "knobs", "message"),
    [
        ("standard", {"hidden": 0}, "ffn.hidden must be at least 1, got 0"),
        ("swiglu", {"hidden": -8}, "ffn.hidden must be at least 1, got -8"),
        ("standard", {"activation": "geglu"}, "ffn.activation must be one of gelu, gelu_tanh, relu, "),
        ("swiglu", {"activation": "swish"}, "relu_squared, silu, got 'swish'"),
        ("moe", {"hidden": 0}, "ffn.hidden must be at least 1, got 0"),
        ("moe", {"n_experts": 0}, "ffn.n_experts must be at least 1, got 0"),
        ("moe", {"top_k": 0}, "ffn.top_k=0 must lie between 1 and ffn.n_experts=8"),
        ("moe", {"top_k": 9}, "ffn.top_k=9 must lie between 1 and ffn.n_experts=8"),
    ],
)
def test_knobs_that_cannot_be(option: str, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build(option, **knobs)


@pytest.mark.parametrize("expert", ["standard", "swiglu"])
def test_moe_wants_a_width_of_whole_rows(expert: str) -> None:
    node = configured("ffn", "moe", expert=configured("ffn", expert))
    message = "ffn=moe needs a width that is a multiple of 8, got model.d_model=20"
    with pytest.raises(ValueError, match=re.escape(message)):
        component(node, d_model=20)
