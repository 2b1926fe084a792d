"""Values of keys and groups: in a run's configuration, in a recipe, and by default."""

from __future__ import annotations

from functools import cache
from math import isfinite
from typing import Any

from omegaconf import OmegaConf

from modgpt.config.compose import compose_job
from modgpt.config.keys import LATER
from modgpt.config.search import option_node, options, variants

Recipe = tuple[dict[str, Any], dict[str, str]]  # a configuration, and the options chosen in it


@cache
def defaults(experiment: str | None = None) -> Recipe:
    """The configuration of an experiment without further overrides, and its option in every group.

    Without an experiment, or with one that is not installed here, those of the default run.
    """
    known = experiment in (*options("experiment"), *variants("experiment"))
    job = compose_job([f"experiment={experiment}"] if known else [])
    values = OmegaConf.to_container(job.config, throw_on_missing=False)
    assert isinstance(values, dict)
    return {str(k): v for k, v in values.items()}, job.choices


def recipe_level(column: str, experiment: str | None) -> str:
    """The option or value that an experiment sets in a column of the table."""
    config, choices = defaults(experiment)
    return choices[column] if column in choices else value_at(column, config)


def value_at(key: str, config: dict[str, Any]) -> str:
    """The value of a key in a configuration; of `norm@attention.qk_norm`, the option placed there."""
    group, at, place = key.partition("@")
    if at:
        return option_of(group, select(config, place))
    return plain(select(config, key) if key in config or key not in LATER else LATER[key])


def option_of(group: str, node: object) -> str:
    """The option of a group that a node of a configuration was made from.

    A class that no packaged option names, such as one from a user's own package, appears under its own
    name.
    """
    if not isinstance(node, dict):
        return "none"
    target = str(node.get("_target_", "default"))
    known = (option for option in options(group) if target_of(group, option) == target)
    return next(known, target.rpartition(".")[2])


@cache
def target_of(group: str, option: str) -> object:
    """The class that an option of a group is made from."""
    return option_node(group, option).get("_target_")


def select(config: object, key: str) -> object:
    """The value at a dotted key, None where there is none."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def plain(value: object) -> str:
    """A value as text; numbers in their shortest form, so that 3e-3 and 0.003 are one level."""
    text = "null" if value is None else str(value).strip("'\"")
    if text.lower() in ("true", "false", "null"):
        return text.lower()
    try:
        number = float(text)
    except ValueError:
        return text
    if not isfinite(number):
        return text
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)
