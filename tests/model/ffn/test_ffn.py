"""Every feed-forward against its definition, and what holds for a mixture of experts alone."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
import torch

from modgpt.model.ffn import activations
from modgpt.model.ffn.base import DenseFeedForward
from modgpt.model.init import Initializer
from modgpt.testing.build import Make, component, is_a, options_of, variants
from modgpt.testing.compare import assert_same, relative_error
from modgpt.testing.initial import check_initial_weights
from modgpt.testing.parts import check_ffn_definition, inputs

C = 24
OPTIONS = options_of("ffn")
DENSE = {name: make for name, make in OPTIONS.items() if is_a(make, DenseFeedForward)}

every_option = pytest.mark.parametrize("make", OPTIONS.values(), ids=OPTIONS)
every_dense = pytest.mark.parametrize("expert", DENSE.values(), ids=DENSE)
every_case = pytest.mark.parametrize(
    "make",
    [
        pytest.param(variant, id=f"{option}-{n}")
        for option, make in OPTIONS.items()
        for n, variant in enumerate(variants(make))
    ],
)


def build(option: str, **knobs: Any) -> Any:
    return component(partial(OPTIONS[option], **knobs), d_model=C)


# --- every option against its definition ----------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (1, 30)], ids=str)
@every_case
def test_outputs_and_gradients(make: Make, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    check_ffn_definition(make, *shape, dtype=dtype)


@every_dense
def test_every_dense_one_is_an_expert(expert: Make) -> None:
    for variant in variants(expert):
        mixture = partial(OPTIONS["moe"], expert=variant, n_experts=5, hidden=8)
        check_ffn_definition(mixture, 2, 7)
        check_ffn_definition(mixture, 2, 7, dtype=torch.float64)


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_activations_are_their_definitions(name: str) -> None:
    a = torch.linspace(-8, 8, 101, dtype=torch.float64).requires_grad_()
    fast, slow = activations.activation_named(name)(a), getattr(activations, name)(a)
    assert_same(fast, slow, name)
    got, wanted = (torch.autograd.grad(y.sum(), a)[0] for y in (fast, slow))
    assert_same(got, wanted, f"gradient of {name}")


# --- initial weights and dropout ------------------------------------------------------------------


@every_option
def test_initial_weights(make: Make) -> None:
    check_initial_weights(make, d_model=96)
    module = make(d_model=96)
    module.reset_parameters(Initializer(module, std=0.02, residual_std=0.005))
    deviations = {name: weight.std().item() for name, weight in module.named_parameters()}
    residual = [name for name, std in deviations.items() if std == pytest.approx(0.005, rel=0.1)]
    others = [name for name, std in deviations.items() if std == pytest.approx(0.02, rel=0.1)]
    assert len(residual) == 1 and len(others) == len(deviations) - 1, deviations


@every_case
def test_silent_start(make: Make) -> None:
    """With a residual_std of 0 the branch adds nothing: biases are zero, too."""
    module = component(make, d_model=C)
    module.reset_parameters(Initializer(module, std=0.02, residual_std=0.0))
    assert not module(inputs(2, 7, C))[0].any()


@every_option
def test_dropout_acts_once(make: Make) -> None:
    """Each element of the output is dropped, or scaled up; nothing inside is touched."""
    torch.manual_seed(0)
    module, x = component(make, d_model=C), inputs(2, 50, C)
    module.dropout = 0.5
    with torch.no_grad():
        whole, dropped = module.eval()(x)[0], module.train()(x)[0]
    gone = dropped == 0
    assert 0.4 < gone.float().mean() < 0.6
    assert_same(dropped[~gone], 2 * whole[~gone], "what is left")


@every_option
def test_bf16_is_near_fp32(make: Make) -> None:
    module, x = component(make, d_model=C), inputs(2, 7, C).requires_grad_()
    wanted = module(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        got = module(x)[0]
    assert got.dtype == torch.bfloat16
    assert relative_error(got, wanted) < 0.03
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
    assert_same(module(x)[0], module.each_expert[0](x), "output")


def test_a_full_house_drops_no_token() -> None:
    """All tokens to the same two experts: no capacity cuts any of them off."""
    module = with_equal_experts(build("moe"))
    x = inputs(3, 40, C).abs()
    favour(module, 2, 5)
    y, aux = module(x)
    assert aux["expert_load"].tolist() == [0, 0, 0.5, 0, 0, 0.5, 0, 0]
    assert_same(y, module.each_expert[0](x), "output")


def favour(module: Any, *experts: int) -> None:
    """Make the router send every token of positive elements to these experts."""
    with torch.no_grad():
        module.router.weight.fill_(-0.1)
        module.router.weight[list(experts)] = 0.1


@pytest.mark.parametrize("bias", [False, True])
def test_empty_experts_get_zero_gradients(bias: bool) -> None:
    module = build("moe", expert=partial(OPTIONS["swiglu"], bias=bias))
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


def test_biases_even_the_load_and_leave_the_gates_alone() -> None:
    module, x = build("moe", bias_rate=0.003, balance_coef=0.0), inputs(4, 50, C) + 1
    before = module(x)[1]["expert_load"].max()
    for _ in range(500):
        module(x)
        module.after_step()
    assert module(x)[1]["expert_load"].max() < 0.2 < 0.25 < before, "an even share is 0.125"
    module.eval()
    gates, chosen, _ = module.route(x.flatten(0, 1))
    scores = (x.flatten(0, 1) @ module.router.weight.T).softmax(-1).gather(1, chosen)
    assert_same(gates, scores / scores.sum(1, keepdim=True), "gates")


def test_only_training_moves_the_biases() -> None:
    module, x = build("moe", bias_rate=0.5), inputs(4, 50, C)
    module.after_step()
    assert not module.balance_bias.any(), "no token yet"
    module.eval()(x)
    module.after_step()
    assert not module.balance_bias.any()
    load = module.train()(x)[1]["expert_load"]
    module.after_step()
    assert_same(module.balance_bias, 0.5 * (0.125 - load).sign(), "one step against the load")


def test_a_token_stays_in_its_best_groups() -> None:
    """Those with the best two experts together, not those with the best one."""
    module = build("moe", n_experts=6, top_k=2, n_groups=3, top_groups=1, scores="sigmoid")
    x = torch.zeros(1, C)
    x[0, 0] = 1
    with torch.no_grad():
        module.router.weight.zero_()
        module.router.weight[:, 0] = torch.tensor([3.0, -3.0, 1.0, 1.0, -2.0, 0.0])
    _, chosen, _ = module.route(x)
    assert sorted(chosen[0].tolist()) == [2, 3], "the first expert is the best, its neighbour the worst"
    module.top_groups = 2
    assert 0 in module.route(x)[1][0].tolist()


def test_shared_experts_are_one_layer_beside_the_others() -> None:
    module, x = build("moe", n_shared=2, hidden=16), inputs(2, 7, C)
    alone = module.shared.transform(x)
    routed = module(x)[0] - alone
    torch.nn.init.zeros_(module.shared.down.weight)
    assert_same(module(x)[0], routed, "what the routed experts add")
    assert module.shared.hidden == 32


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
        ("moe", {"n_shared": -1}, "ffn.n_shared must not be negative, got -1"),
        ("moe", {"bias_rate": -0.1}, "ffn.bias_rate must not be negative, got -0.1"),
        ("moe", {"gate_scale": 0.0}, "ffn.gate_scale must be positive, got 0.0"),
        ("moe", {"bias_rate": float("nan")}, "ffn.bias_rate must not be negative, got nan"),
        ("moe", {"scores": "tanh"}, "ffn.scores must be softmax or sigmoid, got 'tanh'"),
        ("moe", {"choice": "expert"}, "ffn.choice must be token, got 'expert': an expert that chooses"),
        ("moe", {"n_groups": 3}, "ffn.n_groups=3 must divide ffn.n_experts=8"),
        ("moe", {"n_groups": 0}, "ffn.n_groups=0 must divide ffn.n_experts=8"),
        (
            "moe",
            {"n_groups": 4, "top_groups": 5},
            "ffn.top_groups=5 must lie between 1 and ffn.n_groups=4",
        ),
        (
            "moe",
            {"n_groups": 4, "top_k": 3},
            "ffn.top_k=3 is more than the 2 experts in ffn.top_groups=1",
        ),
        ("moe", {"top_k": 0}, "ffn.top_k=0 must lie between 1 and ffn.n_experts=8"),
        ("moe", {"top_k": 9}, "ffn.top_k=9 must lie between 1 and ffn.n_experts=8"),
    ],
)
def test_knobs_that_cannot_be(option: str, knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build(option, **knobs)


@every_dense
def test_moe_wants_a_width_of_whole_rows(expert: Make) -> None:
    message = "ffn=moe needs a width that is a multiple of 8, got model.d_model=20"
    with pytest.raises(ValueError, match=re.escape(message)):
        OPTIONS["moe"](expert=expert, d_model=20)
