"""Patterns of layers: which layer gets what, and what is refused."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest

from modgpt import build_model, compose
from modgpt.errors import UserError
from modgpt.model.ffn.moe import MixtureOfExperts
from modgpt.model.per_layer import per_layer

SIZES = ["model.n_layers=5", "model.d_model=16", "model.n_heads=4"]


def kinds(*overrides: str) -> list[str]:
    model = build_model(compose([*SIZES, "attention=hybrid", *overrides]), vocab_size=5)
    return [type(block.attention).__name__.removesuffix("Attention") for block in model.blocks]


def test_the_pattern_is_repeated() -> None:
    assert kinds() == ["Flash", "LocalWindow", "Flash", "LocalWindow", "Flash"]
    every_third = "attention.pattern=[rest,rest,full]"
    assert kinds(every_third, "attention@attention.options.rest=linear") == [
        *("Linear", "Linear", "Flash", "Linear", "Linear")
    ]


def test_layers_keep_their_own_index() -> None:
    seen: list[int] = []
    for layer in range(3):
        per_layer(options={"a": lambda layer: seen.append(layer)}, pattern=["a"], layer=layer)
    assert seen == [0, 1, 2]


def test_shared_knobs_reach_every_option_and_an_option_may_differ() -> None:
    knobs = [
        "attention.n_kv_heads=2",
        "norm@attention.qk_norm=rmsnorm",
        "attention.options.rest.bias=true",
    ]
    model = build_model(compose([*SIZES, "attention=hybrid", *knobs]), vocab_size=5)
    attentions = [block.attention for block in model.blocks]
    assert {a.n_kv_heads for a in attentions} == {2}
    assert {type(a.q_norm).__name__ for a in attentions} == {"RMSNorm"}
    assert [a.qkv.bias is not None for a in attentions] == [False, True, False, True, False]


def test_it_serves_feed_forwards_too() -> None:
    """Every other layer a mixture, as in Switch Transformer."""
    overrides = ["ffn=hybrid", "ffn.pattern=[dense,moe]", "ffn.hidden=24"]
    model = build_model(compose([*SIZES, *overrides]), vocab_size=5)
    found = [isinstance(block.ffn, MixtureOfExperts) for block in model.blocks]
    assert found == [False, True, False, True, False]
    widths = [getattr(block.ffn, "hidden") for block in model.blocks]  # noqa: B009
    assert widths == [24, 24, 24, 24, 24], "a width beside the pattern is for all"
    overrides += ["ffn.options.dense.hidden=64"]
    model = build_model(compose([*SIZES, *overrides]), vocab_size=5)
    widths = [getattr(block.ffn, "hidden") for block in model.blocks]  # noqa: B009
    assert widths == [64, 24, 64, 24, 64], "but for options with one of their own"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ([], "pattern must name an option for each layer: a, b"),
        (["a", "c", "b"], "pattern names 'c'; its options are a, b"),
        (["a"], "options.b is never used: pattern is ['a']"),
    ],
)
def test_patterns_that_cannot_be(pattern: list[str], message: str) -> None:
    make: Any = partial(dict)
    with pytest.raises(ValueError, match=re.escape(message)):
        per_layer(options={"a": make, "b": make}, pattern=pattern)


def test_a_wrong_pattern_is_one_line() -> None:
    with pytest.raises(UserError, match="pattern names 'local'; its options are full, rest"):
        kinds("attention.pattern=[full,local]")
