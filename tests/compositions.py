"""Compositions discovered from the configs, small enough to check all of them."""

from __future__ import annotations

import itertools

import torch
from omegaconf import DictConfig, OmegaConf

from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.config.search import options
from modgpt.model.gpt import GPT

# The groups whose every combination is checked.
GROUPS = ("attention", "ffn", "norm", "pos")

# Knobs made small where an option has them, so that a few tokens pass windows and chunks.
SMALL = {"window": 5, "chunk": 4, "stride": 4, "block": 2, "n_experts": 4}


def combinations() -> list[dict[str, str]]:
    """Every combination of the options there are."""
    every = itertools.product(*(options(group) for group in GROUPS))
    return [dict(zip(GROUPS, choice, strict=True)) for choice in every]


def name_of(choices: dict[str, str]) -> str:
    return "-".join(choices.values())


def make_small(node: DictConfig) -> None:
    for knob, value in SMALL.items():
        if knob in node:
            node[knob] = value
    for name, nested in node.get("options", {}).items():  # of a pattern
        assert name not in SMALL
        make_small(nested)


_composed: dict[tuple[str, str], DictConfig] = {}


def part(group: str, option: str) -> DictConfig:
    """The configuration of one option, composed once for all tests, with small knobs."""
    if (group, option) not in _composed:
        node = compose([f"{group}={option}"])[group]
        make_small(node)
        _composed[group, option] = node
    return _composed[group, option]


def small_model(choices: dict[str, str], *, seed: int = 0, **sizes: object) -> GPT:
    """A model of two layers with three heads, which is no power of two, and large weights."""
    if ("", "") not in _composed:
        _composed["", ""] = compose(["model=mini"])
    cfg = OmegaConf.merge(
        _composed["", ""],
        {
            "model": {"d_model": 48, "n_layers": 2, "n_heads": 3, "block_size": 32, "init_std": 0.15}
            | sizes
        },
    )
    assert isinstance(cfg, DictConfig)
    for group, option in choices.items():
        cfg[group] = part(group, option)
    torch.manual_seed(seed)
    return build_model(cfg, vocab_size=11)
