"""Declared costs against counted ones: parameters, FLOPs of the references, bytes of the states."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.config.search import options
from modgpt.model.attention.base import Attention
from modgpt.model.cost import Cost, cost_of
from modgpt.model.gpt import GPT
from tests.reference import (
    NoPosition,
    assert_same,
    component,
    configured,
    gpt,
    knobs_of,
    reference_of,
)

C, V = 32, 11
# Below, at and above a window of 4, and one token alone.
LENGTHS = [1, 3, 4, 11]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def flops_of(function: Any, *args: Any, **kwargs: Any) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*args, **kwargs)
    return counter.get_total_flops()


# --- attention ------------------------------------------------------------------------------------

ATTENTION_KNOBS: dict[str, list[dict[str, Any]]] = {
    "bigbird": [
        {"block": 1, "n_window": 1, "n_global": 0, "n_random": 0},
        {"block": 2},
        {"block": 1, "n_window": 2, "n_global": 2, "n_random": 3},
    ],
    "local_window": [{"window": 1}, {"window": 4}],
    "sparse": [
        *({"pattern": "fixed", "stride": s, "summary": c} for s, c in ((1, 1), (4, 1), (4, 4), (3, 2))),
        *({"pattern": "strided", "stride": s} for s in (1, 3, 4)),
    ],
}
ATTENTION_CASES = [
    pytest.param({"option": option, **knobs, **heads}, id=f"{option}-{knobs}-{heads}")
    for option in options("attention")
    for knobs in ATTENTION_KNOBS.get(option, [{}])
    for heads in ({}, {"n_kv_heads": 2}, {"n_kv_heads": 1, "head_dim": 6, "bias": True})
]
every_attention = pytest.mark.parametrize("case", ATTENTION_CASES)


def attention_of(case: dict[str, Any]) -> tuple[Attention, Any, dict[str, Any]]:
    """An attention of four heads with QK-norm, its reference, and the knobs that this one takes."""
    node = configured("attention", qk_norm=configured("norm", "rmsnorm"), **case)
    reference = reference_of("attention", case["option"])
    return component(node, d_model=C, n_heads=4), reference, {"n_heads": 4, **knobs_of(node)}


@every_attention
def test_attention_parameters(case: dict[str, Any]) -> None:
    module, _, _ = attention_of(case)
    cost = module.cost(8)
    assert cost.parameters == cost.active_parameters == count(module)


@pytest.mark.parametrize("length", LENGTHS)
@every_attention
def test_attention_flops(case: dict[str, Any], length: int) -> None:
    module, reference, knobs = attention_of(case)
    pos = NoPosition({}, n_heads=4, init_std=0.02)
    counted = flops_of(reference, torch.randn(1, length, C), module.state_dict(), pos, **knobs)
    assert module.cost(length).flops == pytest.approx(counted / length)


@pytest.mark.parametrize("length", LENGTHS)
@every_attention
def test_attention_state(case: dict[str, Any], length: int) -> None:
    module, _, _ = attention_of(case)
    pos: Any = component(configured("pos", "none"), d_model=C, n_heads=4, block_size=8, init_std=0.02)
    with torch.no_grad():
        state = module.initial_state(1, capacity=length)
        _, state = module(torch.randn(1, length, C), pos, torch.arange(length), state)
    assert state is not None
    assert state.nbytes == 4 * module.cost(length).state


# --- feed-forward ---------------------------------------------------------------------------------

FFN_KNOBS: dict[str, list[dict[str, Any]]] = {
    "standard": [{}, {"bias": True}],
    "swiglu": [{}, {"bias": True}],
    "moe": [
        {},
        {"top_k": 1},
        {"top_k": 3, "n_experts": 5},
        {"expert": configured("ffn", "standard", bias=True)},
    ],
}
every_ffn = pytest.mark.parametrize(
    ("option", "knobs"),
    [
        pytest.param(option, knobs, id=f"{option}-{number}")
        for option in options("ffn")
        for number, knobs in enumerate(FFN_KNOBS.get(option, [{}]))
    ],
)


@every_ffn
def test_ffn_parameters(option: str, knobs: dict[str, Any]) -> None:
    module = component(configured("ffn", option, **knobs), d_model=C)
    assert module.cost(8).parameters == count(module)


@every_ffn
def test_ffn_active_parameters(option: str, knobs: dict[str, Any]) -> None:
    """Active are those that a single token moves."""
    module = component(configured("ffn", option, **knobs), d_model=C)
    # A small token, for the far left of GELU is flat to the last bit.
    y, aux = module(0.1 * torch.randn(1, 1, C, generator=torch.Generator().manual_seed(0)))
    (y.square().sum() + sum(value.sum() for name, value in aux.items() if name == "loss")).backward()
    moved = sum(int((parameter.grad != 0).sum()) for parameter in module.parameters())
    assert module.cost(8).active_parameters == moved


@every_ffn
def test_ffn_flops(option: str, knobs: dict[str, Any]) -> None:
    node = configured("ffn", option, **knobs)
    module = component(node, d_model=C)
    reference = reference_of("ffn", option)
    counted = flops_of(reference, torch.randn(5, C), module.state_dict(), **knobs_of(node))
    assert module.cost(5).flops == pytest.approx(counted / 5)


@pytest.mark.parametrize("width", [128, 256, 384])
@pytest.mark.parametrize("option", ["standard", "swiglu", "moe"])
def test_feed_forwards_are_of_one_size(option: str, width: int) -> None:
    """Active parameters within 2 % of 8C², so that a comparison is about the kind, not the size."""
    module = component(configured("ffn", option), d_model=width)
    assert module.cost(8).active_parameters == pytest.approx(8 * width**2, rel=0.02)


# --- the whole model ------------------------------------------------------------------------------

SIZES = [f"model.d_model={C}", "model.n_layers=2", "model.n_heads=4", "model.block_size=16"]
# Every option of every group once, and the knobs that change what a model is made of.
COMPOSITIONS = [
    [f"{g}={o}"] for g in ("attention", "ffn", "norm", "pos", "block") for o in options(g)
] + [
    ["model.tied_head=false", "norm=layernorm", "norm.bias=true"],
    ["attention=local_window", "attention.window=4", "ffn=moe", "pos=learned", "norm=scalenorm"],
    ["attention=linear", "ffn=moe", "ffn@ffn.expert=standard", "pos=alibi", "block=parallel"],
    ["attention.n_kv_heads=2", "norm@attention.qk_norm=rmsnorm", "block.norm_at=out"],
    ["block=parallel", "block.norm_at=both"],
    ["attention=hybrid", "attention@attention.options.rest=linear", "attention.n_kv_heads=1"],
    ["norm@attention.qk_norm=rmsnorm", "attention.qk_norm_over=width", "attention.out_bias=true"],
    ["norm@model.embedding_norm=layernorm", "pos=learned"],
    ["pos.fraction=0.5", "ffn=standard", "ffn.activation=relu_squared"],
]
every_composition = pytest.mark.parametrize("overrides", COMPOSITIONS, ids=" ".join)


def model_of(overrides: list[str]) -> tuple[GPT, Any]:
    cfg = compose([*SIZES, *overrides])
    torch.manual_seed(0)
    model = build_model(cfg, vocab_size=V)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model, cfg


@every_composition
def test_model(overrides: list[str]) -> None:
    """The model is its reference, so that what is counted on the one belongs to the other."""
    model, cfg = model_of(overrides)
    tokens = torch.randint(V, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        fast, slow = model(tokens), gpt(tokens, model.state_dict(), cfg)
    assert_same(fast / slow.std(), slow / slow.std(), "logits")

    cost = model.cost(9)
    assert cost.parameters == count(model)
    assert cost.flops == pytest.approx(flops_of(gpt, tokens, model.state_dict(), cfg) / 9)
    with torch.no_grad():
        _, state = model.decode(tokens, model.initial_state(1, capacity=9))
    assert state.nbytes == 4 * cost.state


@every_composition
def test_active_parameters_of_a_model(overrides: list[str]) -> None:
    """All of them, but for the experts that a token does not meet."""
    model, cfg = model_of(overrides)
    idle = 0
    for block in model.blocks:
        experts = getattr(block.ffn, "experts", None)
        if experts is not None:
            idle += count(experts) * (cfg.ffn.n_experts - cfg.ffn.top_k) // cfg.ffn.n_experts
    assert model.cost(9).active_parameters == count(model) - idle


def test_costs_add_up() -> None:
    assert Cost(1, 2, 3.0, 4) + Cost(10, 20, 30.0, 40) == Cost(11, 22, 33.0, 44)


def test_a_part_that_declares_nothing_costs_its_parameters() -> None:
    assert cost_of(nn.LayerNorm(7), 5) == Cost(14, 14)
    assert cost_of(nn.Identity(), 5) == Cost()


def test_frozen_parameters_are_not_counted() -> None:
    norm = nn.LayerNorm(7)
    norm.bias.requires_grad_(False)
    assert cost_of(norm, 5).parameters == 7
