"""Models of a fair size: the feed-forward so wide that the whole model costs what the default does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from omegaconf import DictConfig, OmegaConf

from modgpt.config.build import build_model
from modgpt.config.compose import PARTS, compose
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
    """Set `ffn.hidden` so that the model costs what the default parts do at the same `model` sizes.

    An `ffn.hidden` that is given stays, and so does everything with `match=none`.

    Args:
        cfg: resolved, with the size of the vocabulary; changed in place.

    Returns:
        What was matched, None where nothing was.

    Raises:
        UserError: an unknown `match`, or no width comes within 2 % of the reference.
    """
    wanted = cfg.match
    if wanted in (None, "none"):
        return None
    if wanted not in QUANTITIES:
        raise UserError(f"match must be {', '.join(QUANTITIES)} or none, got {wanted!r}")
    if "hidden" not in cfg.ffn or cfg.ffn.hidden is not None:
        return None
    measure = QUANTITIES[wanted]

    def at(hidden: int) -> float:
        return measure(cost_at(cfg, hidden))

    reference = measure(cost_at(with_default_parts(cfg)))
    # Every cost is linear in the width: two points give the line, its crossing the width.
    one, nine = at(1), at(9)
    hidden = max(1, round(1 + (reference - one) / (nine - one) * 8))
    value = at(hidden)
    if abs(value / reference - 1) > TOLERANCE:
        raise UserError(
            f"match={wanted} finds no width of the feed-forward: with ffn.hidden={hidden} the model has "
            f"{value:,.0f}, the default parts {reference:,.0f}; give ffn.hidden, or match=none"
        )
    cfg.ffn.hidden = hidden
    return Matched(wanted, hidden, value, reference)


def cost_at(cfg: DictConfig, hidden: int | None = None) -> Cost:
    """The declared cost of a configuration's model, with another width of the feed-forward."""
    model = OmegaConf.masked_copy(cfg, ["model", *PARTS])
    if hidden is not None:
        model.ffn.hidden = hidden
    return declared_cost(OmegaConf.to_yaml(model))


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
