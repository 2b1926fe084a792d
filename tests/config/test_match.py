"""Fair sizes: the whole model costs what the default parts do, whatever the composition."""

from __future__ import annotations

import random
import re

import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.config.match import QUANTITIES, match_size
from modgpt.errors import UserError
from modgpt.model.cost import cost_of, count_parameters
from tests.compositions import SEED, combinations, covering

CHOICES = [[f"{group}={option}" for group, option in parts.items()] for parts in covering()]
EVERY = [[f"{group}={option}" for group, option in parts.items()] for parts in combinations()]
DRAWN = random.Random(SEED).sample(EVERY, 150)


def settled(*overrides: str) -> DictConfig:
    cfg = compose(overrides)
    OmegaConf.resolve(cfg)
    with open_dict(cfg):
        cfg.model.vocab_size = 65
    return cfg


def counted(cfg: DictConfig, quantity: str) -> float:
    """The quantity of the model that a configuration builds."""
    with torch.device("meta"):
        model = build_model(cfg)
    if quantity == "total_params":
        return count_parameters(model)
    return QUANTITIES[quantity](cost_of(model, cfg.model.block_size))


@pytest.mark.parametrize("every", [CHOICES, pytest.param(DRAWN, marks=pytest.mark.slow)], ids=len)
def test_every_composition_is_within_one_per_cent(every: list[list[str]]) -> None:
    default = settled()
    references = {quantity: counted(default, quantity) for quantity in QUANTITIES}
    off = {}
    for choices in every:
        composed = settled(*choices)
        for quantity, reference in references.items():
            cfg = composed.copy()
            cfg.match = quantity
            matched = match_size(cfg)
            assert matched is not None and cfg.ffn.hidden is None, "the composition stays as it is"
            cfg.ffn.hidden = matched.hidden
            off[f"{' '.join(choices)} match={quantity}"] = counted(cfg, quantity) / reference - 1
    worst = max(off, key=lambda name: abs(off[name]))
    assert len(off) == 3 * len(every) and abs(off[worst]) <= 0.01, f"{worst}: {off[worst]:+.2%}"


def test_without_it_they_are_not() -> None:
    dense, mixture = (counted(settled(f"ffn={ffn}"), "total_params") for ffn in ("swiglu", "moe"))
    assert mixture > 2 * dense


def test_no_other_width_comes_closer() -> None:
    cfg = settled("ffn=moe", "attention.n_kv_heads=1", "match=active_params")
    matched = match_size(cfg)
    assert matched is not None
    distance = abs(matched.value - matched.reference)
    for hidden in (matched.hidden - 1, matched.hidden + 1):
        other = cfg.copy()
        other.ffn.hidden = hidden
        assert abs(counted(other, "active_params") - matched.reference) >= distance


def test_what_attention_saves_the_feed_forward_gets() -> None:
    plain, multi_query = (
        settled("match=active_params"),
        settled("match=active_params", "attention.n_kv_heads=1"),
    )
    reference, wider = match_size(plain), match_size(multi_query)
    assert reference is not None and reference.hidden == 344, "the default is its own reference"
    assert wider is not None and wider.hidden > 344


def test_of_a_pattern_the_widths_that_are_left_open_are_matched() -> None:
    matched = match_size(settled("ffn=hybrid", "ffn.options.dense.hidden=344"))
    assert matched is not None and matched.hidden == pytest.approx(170, abs=4), "that of the experts"
    widths = ["ffn.options.dense.hidden=344", "ffn.options.moe.hidden=168"]
    assert match_size(settled("ffn=hybrid", *widths)) is None


@pytest.mark.parametrize("overrides", [["match=none"], ["match=flops", "ffn.hidden=100"]])
def test_what_is_not_asked_for_or_given_stays(overrides: list[str]) -> None:
    cfg = settled(*overrides)
    before = cfg.ffn.hidden
    assert match_size(cfg) is None and cfg.ffn.hidden == before


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["match=params"], "match must be active_params, total_params, flops or none, got 'params'"),
        (["match=active_params", "attention.head_dim=512"], "finds no width of the feed-forward"),
    ],
)
def test_what_cannot_be_matched_is_told(overrides: list[str], text: str) -> None:
    with pytest.raises(UserError, match=re.escape(text)):
        match_size(settled(*overrides))
