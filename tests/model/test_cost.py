"""Declared costs against counted ones: parameters, FLOPs of the definitions, bytes of the states."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.config.keys import PARTS
from modgpt.config.search import options
from modgpt.model.cost import Cost, cost_of
from modgpt.model.definition import defined
from modgpt.model.gpt import GPT
from modgpt.testing.build import Make, component, options_of, variants, with_knobs
from modgpt.testing.compare import assert_same
from modgpt.testing.cost import check_attention_cost, check_ffn_cost, count, flops_of

C, V = 32, 11


def cases(group: str) -> list[Any]:
    """Every variant of every option."""
    return [
        pytest.param(variant, id=f"{option}-{n}")
        for option, make in options_of(group).items()
        for n, variant in enumerate(variants(make))
    ]


# Below, at and above a window of 4, and one token alone.
@pytest.mark.parametrize("length", [1, 3, 4, 11])
@pytest.mark.parametrize(
    "knobs", [{}, {"n_kv_heads": 2}, {"n_kv_heads": 1, "head_dim": 6, "bias": True}]
)
@pytest.mark.parametrize("make", cases("attention"))
def test_attention(make: Make, knobs: dict[str, Any], length: int) -> None:
    norm = options_of("norm")["rmsnorm"]
    check_attention_cost(with_knobs(make, qk_norm=norm, **knobs), length)


@pytest.mark.parametrize("make", cases("ffn"))
def test_ffn(make: Make) -> None:
    check_ffn_cost(make, d_model=C)


@pytest.mark.parametrize("width", [128, 256, 384])
@pytest.mark.parametrize("option", options("ffn"))
def test_feed_forwards_are_of_one_size(option: str, width: int) -> None:
    """Active parameters within 2 % of 8C², so that a comparison is about the kind, not the size."""
    module = options_of("ffn")[option](d_model=width)
    assert module.cost(8).active_parameters == pytest.approx(8 * width**2, rel=0.02)


# --- the whole model ------------------------------------------------------------------------------

SIZES = [f"model.d_model={C}", "model.n_layers=2", "model.n_heads=4", "model.block_size=16"]
# Every option of every group once, and the knobs that change what a model is made of.
COMPOSITIONS = [[f"{group}={option}"] for group in PARTS for option in options(group)] + [
    ["model.tied_head=false", "norm=layernorm", "norm.bias=true"],
    ["attention=local_window", "attention.window=4", "ffn=moe", "pos=learned", "norm=scalenorm"],
    ["attention=linear", "ffn=moe", "ffn@ffn.expert=standard", "pos=alibi", "block=parallel"],
    ["attention.n_kv_heads=2", "norm@attention.qk_norm=rmsnorm", "block.norm_at=out"],
    ["block=parallel", "block.norm_at=both"],
    ["attention=hybrid", "attention@attention.options.rest=linear", "attention.n_kv_heads=1"],
    ["norm@attention.qk_norm=rmsnorm", "attention.qk_norm_over=width", "attention.out_bias=true"],
    ["norm@model.embedding_norm=layernorm", "pos=learned"],
    ["attention.output_gate=element", "attention.sinks=true", "attention.softcap=5"],
    ["attention=linear", "attention.output_gate=head"],
    ["attention=gated_delta", "attention.conv=4", "norm@attention.out_norm=rmsnorm"],
    ["attention=mla", "attention.q_rank=9", "attention.n_kv_heads=2", "attention.v_head_dim=5"],
    ["ffn=hybrid", "ffn.pattern=[dense,moe]", "ffn.hidden=16", "ffn@ffn.options.dense=standard"],
    ["ffn=moe", "ffn.n_shared=2", "ffn.scores=sigmoid", "ffn.bias_rate=0.001"],
    ["pos.fraction=0.5", "ffn=standard", "ffn.activation=relu_squared"],
]
every_composition = pytest.mark.parametrize("overrides", COMPOSITIONS, ids=" ".join)


def model_of(overrides: list[str]) -> tuple[GPT, Any]:
    cfg = compose([*SIZES, *overrides])
    return component(build_model, cfg, vocab_size=V), cfg


@every_composition
def test_model(overrides: list[str]) -> None:
    """The model is its definition, so that what is counted on the one belongs to the other."""
    model, _ = model_of(overrides)
    tokens = torch.randint(V, (1, 9), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        fast, slow = model(tokens), defined(model)(tokens)
    assert_same(fast / slow.std(), slow / slow.std(), "logits")

    cost = model.cost(9)
    assert cost.parameters == count(model)
    assert cost.flops == pytest.approx(flops_of(defined(model), tokens) / 9)
    with torch.no_grad():
        _, state = model.decode(tokens, model.initial_state(1, capacity=9))
    assert state.nbytes == 4 * cost.state


@every_composition
def test_active_parameters_of_a_model(overrides: list[str]) -> None:
    """All of them, but for the experts that a token does not meet."""
    model, _ = model_of(overrides)
    idle = 0
    for block in model.blocks:
        mixture: Any = block.ffn
        if hasattr(mixture, "experts"):
            unused = mixture.n_experts - mixture.top_k
            idle += count(mixture.experts) * unused // mixture.n_experts
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
