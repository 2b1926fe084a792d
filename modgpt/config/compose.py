"""From overrides to a configuration, with every mistake told in one line.

Hydra composes; nothing edits the result. Imports neither torch nor Lightning: a typo is answered at
once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from modgpt.config.keys import KEYS, PARTS
from modgpt.config.overrides import check_known, check_overrides, parse
from modgpt.config.search import groups, loader, option_node, options
from modgpt.errors import UserError, did_you_mean

OmegaConf.register_new_resolver("fit", lambda total, size: fit(total, size), replace=True)


def fit(total: int, size: object) -> int:
    """`${fit:4096,${model.block_size}}`: how many of a size fit into a total, and at least one."""
    # An invalid size is reported by the component that gets it.
    return max(1, total // size) if isinstance(size, int) and size > 0 else total


@dataclass(frozen=True)
class Job:
    """One composed training: the configuration, the option chosen in every group, the overrides."""

    config: DictConfig
    choices: dict[str, str]
    overrides: list[str]


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration that `modgpt train` would get from these overrides.

    Raises:
        UserError: an unknown group, option or key, or a malformed override.
    """
    return compose_job(overrides).config


def compose_job(overrides: Sequence[str] = ()) -> Job:
    """`compose`, with the choices and overrides beside the configuration."""
    check_overrides(overrides)
    config, _ = compose_with_hydra(overrides)
    chosen = OmegaConf.to_container(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return make_job(config, chosen, overrides)


def compose_with_hydra(overrides: Sequence[str]) -> tuple[DictConfig, bool]:
    """What Hydra composes, its own settings included, and whether it makes several jobs.

    Raises:
        UserError: Hydra refuses the overrides.
    """
    try:
        config = loader().load_configuration(
            config_name="train", overrides=list(overrides), run_mode=RunMode.RUN, from_shell=False
        )
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides) from error
    return config, config.hydra.mode == RunMode.MULTIRUN


def make_job(config: DictConfig, chosen: object, overrides: Iterable[str]) -> Job:
    """A checked job from a composed configuration and Hydra's record of the choices.

    Raises:
        UserError: the configuration has a key at its top that nothing reads, or lacks a group.
    """
    assert isinstance(chosen, dict)
    overrides = list(overrides)
    for key in config:
        check_known(str(key), "group or key")  # a `+` may have added it
    check_placed(config, overrides)
    for group, key in KEYS.items():
        if key.type is None and key.required and config.get(group) is None:
            raise UserError(
                f"the group {group} cannot be left out: choose one of {', '.join(options(group))}"
            )
    chosen = chosen | listed_options(overrides)  # Hydra's record leaves them out
    return Job(config, {g: str(chosen[g]) for g in groups() if chosen.get(g)}, overrides)


def listed_options(overrides: Sequence[str]) -> dict[str, str]:
    """The groups for which an override lists several options, as `[default,mlflow]`."""
    return {
        o.key_or_group: f"[{','.join(str(getattr(v, 'text', v)) for v in value)}]"
        for o in parse(overrides)
        if o.key_or_group in groups() and isinstance(value := o.value(), list)
    }


def label(choices: dict[str, str]) -> str:
    """A name for what has been chosen: the experiment, if it is one, and the parts."""
    named = ("experiment", *(part for part in PARTS if part != "block"))
    return "-".join(choices[group].rpartition("/")[2] for group in named if group in choices)


def check_placed(config: DictConfig, overrides: Sequence[str]) -> None:
    """Refuse an option for a place (`norm@attention.qk_norm=…`) that something else fills.

    Raises:
        UserError: the option is not what stands at its place.
    """
    for override in parse(overrides):
        option = override.value()
        if override.package is None or override.is_delete() or not isinstance(option, str):
            continue
        group, place = override.key_or_group, override.package
        found = OmegaConf.select(config, f"{place}._target_")
        if found != option_defaults(group, option)._target_:
            raise UserError(f"{group}@{place}={option} has no effect: nothing reads it at that place")


@cache
def option_defaults(group: str, option: str) -> DictConfig:
    """The configuration of an option as its YAML gives it."""
    return compose([f"{group}={option}"])[group]


def explain(error: Exception, overrides: Sequence[str]) -> UserError:
    """The one line that tells what Hydra found wrong."""
    for override in parse(overrides):
        key = override.key_or_group
        if f"Could not override '{key}'" in str(error):
            return UserError(unknown_key(key, overrides))
    for launcher in ("submitit_slurm", "submitit_local"):
        if f"Could not find 'hydra/launcher/{launcher}'" in str(error):
            return UserError(
                f"hydra/launcher={launcher} needs submitit: install with pip install -e '.[slurm]'"
            )
    return UserError(str(error))


def unknown_key(key: str, overrides: Sequence[str]) -> str:
    """What is wrong with a key that the composition does not have."""
    parent, _, leaf = key.rpartition(".")
    others = [o.input_line or "" for o in parse(overrides) if o.key_or_group != key]
    try:
        node = OmegaConf.select(compose(others), parent)
    except UserError:
        node = None
    if not isinstance(node, DictConfig):
        return f"unknown key {key!r}"
    keys = [str(k) for k in node if not str(k).startswith("_")]
    elsewhere = [o for o in options(parent) if leaf in option_node(parent, o)]
    hint = f"; {parent}={elsewhere[0]} has it" if elsewhere else did_you_mean(leaf, keys)
    return f"unknown key {key!r}{hint} ({parent} has: {', '.join(keys)})"
