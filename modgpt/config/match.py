"""Models of a fair size: the feed-forward so wide that the whole model costs what the default does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from omegaconf import DictConfig, OmegaConf

from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.config.keys import PARTS
from modgpt.errors import UserError
from modgpt.model.cost import Cost, cost_of

# What `match` can hold equal, by the attribute of the whole model's cost.
QUANTITIES: dict[str, Callable[[Cost], float]] = {
    "active_params": lambda cost: cost.active_parameters,
    "total_params": lambda cost: cost.parameters,
    "flops": lambda cost: cost.flops,
}
TOLERANCE = 0.02


@dataclass(frozen=True)
class Matched:
    """A model that was made as large as the reference.

    Attributes:
        quantity: what is equal, one of `QUANTITIES`.
        hidden: the `ffn.hidden` that makes it so.
        value: the quantity of this model.
        reference: that of the model with the default parts at the same sizes.
    """

    quantity: str
    hidden: int
    value: float
    reference: float


def match_size(cfg: DictConfig) -> Matched | None:
    """The `ffn.hidden` with which the model costs what the default parts do at the same `model` sizes.

    None where nothing is to be matched: with `match=none`, or where `ffn.hidden` is given, or all widths
    of a pattern are.

    Args:
        cfg: resolved, with the size of the vocabulary.

    Raises:
        UserError: an unknown `match`, or no width comes within 2 % of the reference.
    """
    if cfg.match == "none":
        return None
    if cfg.match not in QUANTITIES:
        raise UserError(f"match must be {', '.join(QUANTITIES)} or none, got {cfg.match!r}")
    if "hidden" not in cfg.ffn or cfg.ffn.hidden is not None:
        return None
    measure = QUANTITIES[cfg.match]

    def at(hidden: int) -> float:
        return measure(cost_at(with_hidden(cfg, hidden)))

    reference = measure(cost_at(with_default_parts(cfg)))
    # Every cost is linear in the width: two points give the line, its crossing the width.
    one, nine = at(1), at(9)
    if one == nine:
        return None
    hidden = max(1, round(1 + (reference - one) / (nine - one) * 8))
    value = at(hidden)
    if abs(value / reference - 1) > TOLERANCE:
        raise UserError(
            f"match={cfg.match} finds no width of the feed-forward: with ffn.hidden={hidden} the model "
            f"has {value:,.0f}, the default parts {reference:,.0f}; give ffn.hidden, or match=none"
        )
    return Matched(cfg.match, hidden, value, reference)


def with_hidden(cfg: DictConfig, hidden: int) -> DictConfig:
    """The configuration with another width of the feed-forward."""
    cfg = cfg.copy()
    cfg.ffn.hidden = hidden
    return cfg


def cost_at(cfg: DictConfig) -> Cost:
    """The declared cost of a configuration's model."""
    return declared_cost(OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, ["model", *PARTS])))


@cache  # the jobs of a sweep have few models, each with several seeds and rates
def declared_cost(model: str) -> Cost:
    """The cost of a model given by its configuration in YAML."""
    cfg = OmegaConf.create(model)
    assert isinstance(cfg, DictConfig)
    with torch.device("meta"):  # shapes without memory, and without drawing random numbers
        return cost_of(build_model(cfg), cfg.model.block_size)


def with_default_parts(cfg: DictConfig) -> DictConfig:
    """The configuration with every part replaced by the default one."""
    cfg = cfg.copy()
    for part in PARTS:
        cfg[part] = default_parts()[part]
    return cfg


@cache
def default_parts() -> DictConfig:
    default = compose()
    return OmegaConf.masked_copy(default, [*PARTS])
