"""From transformers' configuration to overrides of a preset, and from a composition to theirs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.config.keys import PARTS
from modgpt.config.saved import CHANGEABLE, flat
from modgpt.errors import UserError
from modgpt.huggingface.tables import ARCHITECTURES, Architecture, Config, Converted
from modgpt.model.gpt import GPT

# What has no counterpart for it acts on the training alone, or is said by another key.
WITHOUT_COUNTERPART = (*CHANGEABLE, "block_size", "balance_coef", "z_coef")


def find_architecture(config: Config) -> Architecture:
    """The table for a configuration of transformers.

    Raises:
        UserError: an unknown architecture, or a variant of it whose parts are not here.
    """
    known = [a for a in ARCHITECTURES if a.model_type == config.get("model_type")]
    if not known:
        names = ", ".join(dict.fromkeys(a.model_type for a in ARCHITECTURES))
        raise UserError(
            f"model_type={config.get('model_type')!r} has no table here; these have: {names}"
        )
    for architecture in known:
        if not differing(architecture, config):
            return architecture
    key, wanted = differing(known[-1], config)[0]
    raise UserError(
        f"{known[-1].model_type} with {key}={select(config, key)!r} has no counterpart here, only with "
        f"{key}={wanted!r}"
    )


def differing(architecture: Architecture, config: Config) -> list[tuple[str, Any]]:
    """What a configuration would have to say, and does not, for the parts to be the preset's."""
    wrong = [(k, v) for k, v in architecture.fixed.items() if select(config, k) != v]
    sliding = architecture.config.get("attention.window")
    if isinstance(sliding, str) and select(config, sliding) is None:
        wrong.append((sliding, "a number"))
    return wrong


def overrides_for(architecture: Architecture, config: Config) -> list[str]:
    """The overrides that compose the model of a configuration of transformers."""
    overrides = [f"experiment={architecture.preset}"]
    for ours, theirs in architecture.config.items():
        convert = theirs.ours if isinstance(theirs, Converted) else partial(select, key=theirs)
        overrides.append(f"{ours}={written(convert(config))}")
    return overrides


def written(value: Any) -> str:
    """A value as Hydra reads it."""
    if value is None:
        return "null"
    if isinstance(value, list):
        return f"[{','.join(map(written, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value).strip("'")


def match_architecture(cfg: DictConfig, model: GPT) -> tuple[Architecture, dict[str, Any]]:
    """The architecture that a composition is one of, and its configuration in transformers' words.

    Raises:
        UserError: none has these parts; names the nearest one and what it has instead.
    """
    ours = settled(cfg, model)
    nearest: tuple[Architecture, list[str]] | None = None
    fewest = (math.inf, math.inf)
    for architecture in ARCHITECTURES:
        preset = preset_like(architecture, ours)
        if preset is None:
            continue
        differences = {
            key: preset.get(key)
            for key in ours.keys() | preset.keys()
            if ours.get(key) != preset.get(key) and key.split(".")[-1] not in WITHOUT_COUNTERPART
        }
        differences |= conflicting(architecture, ours)
        if not differences:
            return architecture, their_config(architecture, ours)
        told = [
            f"{name} is {short(ours.get(key))}, not {short(wanted)}"
            for name, key, wanted in by_part(differences)
        ]
        if (len(told), len(differences)) < fewest:
            nearest, fewest = (architecture, told), (len(told), len(differences))
    assert nearest is not None  # Llama's table has all sizes, so its parts fit where ours do
    architecture, told = nearest
    raise UserError(
        "no architecture of transformers that is known here has these parts; the nearest is "
        f"{architecture.model_type} (experiment={architecture.preset}), but {'; '.join(told)}"
    )


def by_part(differences: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """(name, key, wanted) of what differs; where a part is another one, its knobs are left out."""
    replaced = [key.removesuffix("._target_") for key in differences if key.endswith("._target_")]
    for key, wanted in sorted(differences.items()):
        name = key.removesuffix("._target_")
        if not any(name.startswith(f"{part}.") for part in replaced):
            yield name, key, wanted


def conflicting(architecture: Architecture, ours: dict[str, Any]) -> dict[str, Any]:
    """Keys of ours that share one of theirs, which can say one value only."""
    said: dict[str, Any] = {}
    wrong = {}
    for key, theirs in architecture.config.items():
        if isinstance(theirs, str) and said.setdefault(theirs, ours.get(key)) != ours.get(key):
            wrong[key] = said[theirs]
    return wrong


def short(value: Any) -> str:
    """A value in a message; of a class only its name."""
    return value.rpartition(".")[2] if isinstance(value, str) else str(value)


def preset_like(architecture: Architecture, ours: dict[str, Any]) -> dict[str, Any] | None:
    """The preset's settings, those that transformers' configuration can say taken from ours.

    None where its parts do not fit these sizes.
    """
    cfg = composed_preset(architecture.preset).copy()
    for key in architecture.config:
        if key in ours:
            OmegaConf.update(cfg, key, ours[key])
    try:
        with torch.device("meta"):
            return settled(cfg, build_model(cfg))
    except ValueError:
        return None


@cache
def composed_preset(name: str) -> DictConfig:
    return compose([f"experiment={name}"])


def settled(cfg: DictConfig, model: GPT) -> dict[str, Any]:
    """All settings of a model by their dotted keys, a null replaced by the value it stands for."""
    cfg = cfg.copy()
    OmegaConf.resolve(cfg)
    settings = {k: v for group in ("model", *PARTS) for k, v in flat(cfg[group], group).items()}
    block = model.blocks[0]
    modules = {"attention": block.attention, "ffn": block.ffn}
    for key in settings:
        part, _, knob = key.partition(".")
        if settings[key] is None and part in modules:
            settings[key] = getattr(modules[part], knob.rpartition(".")[2], None)
    return settings


def their_config(architecture: Architecture, ours: dict[str, Any]) -> dict[str, Any]:
    """Transformers' configuration, as nested as it is there."""
    config: dict[str, Any] = {}
    for key, value in architecture.fixed.items():
        put(config, key, value)
    for key, theirs in architecture.config.items():
        if isinstance(theirs, Converted):
            put(config, theirs.name, theirs.theirs(ours[key], ours["model.n_layers"]))
        else:
            put(config, theirs, ours[key])
    return config


def select(config: Config, key: str) -> Any:
    """The value of a dotted key, None where there is none."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def put(config: dict[str, Any], key: str, value: Any) -> None:
    *outer, last = key.split(".")
    for name in outer:
        config = config.setdefault(name, {})
    config[last] = value
