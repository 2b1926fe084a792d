"""Conversion of configurations: transformers' to overrides of a preset, a composition to theirs."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator
from functools import cache
from reprlib import repr as repr_short
from typing import Any

import torch
import transformers
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from modgpt.config.build import build_model
from modgpt.config.compose import compose
from modgpt.config.keys import PARTS
from modgpt.errors import UserError
from modgpt.huggingface.architecture import Architecture, Config, Converted
from modgpt.huggingface.tables import ARCHITECTURES
from modgpt.model.gpt import GPT
from modgpt.runs.saved import CHANGEABLE, flat

unknown = object()  # no value of a configuration
# Knobs that transformers' configurations lack, and that affect training alone.
WITHOUT_COUNTERPART = (*CHANGEABLE, "balance_coef", "z_coef")


def find_architecture(config: Config) -> Architecture:
    """The table for a configuration of transformers.

    Raises:
        UserError: an unknown architecture, or a variant of it whose parts are not here.
    """
    known = [a for a in ARCHITECTURES if a.model_type == config.get("model_type")]
    if not known:
        names = ", ".join(dict.fromkeys(a.model_type for a in ARCHITECTURES))
        raise UserError(
            f"model_type={repr_short(config.get('model_type'))} has no table here; these have: {names}"
        )
    for architecture in known:
        if not differing(architecture, config):
            return architecture
    key, wanted = differing(known[-1], config)[0]
    raise UserError(
        f"{known[-1].model_type} with {key}={repr_short(select(config, key))} has no counterpart here, "
        f"only with {key}={wanted!r}"
    )


def differing(architecture: Architecture, config: Config) -> list[tuple[str, Any]]:
    """What a configuration would have to say, and does not, for the parts to be the preset's."""
    wrong = [(k, v) for k, v in architecture.fixed_for(config).items() if select(config, k) != v]
    sliding = architecture.config.get("attention.window")
    if isinstance(sliding, str) and select(config, sliding) is None:
        wrong.append((sliding, "a number"))
    return wrong


def overrides_for(architecture: Architecture, config: Config) -> list[str]:
    """The overrides that compose the model of a configuration of transformers.

    Raises:
        UserError: a value is no number, truth value or known word; the table names an unknown key.
    """
    check_table(architecture)
    overrides = [f"experiment={architecture.preset}"]
    for ours, theirs in architecture.config.items():
        name = theirs.name if isinstance(theirs, Converted) else theirs
        value = theirs.ours(config) if isinstance(theirs, Converted) else select(config, theirs)
        overrides.append(f"{ours}={literal(name, value)}")
    for ours, derive in architecture.derived.items():
        overrides.append(f"{ours}={literal(ours, derive(config))}")
    return overrides


def literal(name: str, value: Any) -> str:
    """A value as Hydra's grammar writes it; only values that the grammar cannot misread.

    Raises:
        UserError: the value is no number, truth value or list of plain words.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return repr(value)
    if isinstance(value, list) and all(isinstance(v, str) and re.fullmatch("[a-z]+", v) for v in value):
        return f"[{','.join(value)}]"
    raise UserError(f"config.json has {name}={repr_short(value)}, which is not a number")


def check_table(architecture: Architecture) -> None:
    """Hold a table's keys to the preset and to transformers' configuration.

    Raises:
        UserError: names the key that one of them does not have.
    """
    table = f"the table of {architecture.model_type} (experiment={architecture.preset})"
    preset = composed_preset(architecture.preset)
    theirs = transformers.CONFIG_MAPPING[architecture.model_type]().to_dict()
    for key in (*architecture.config, *architecture.derived):
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(preset, parent)
        if not isinstance(node, DictConfig) or leaf not in node.keys():  # noqa: SIM118, also of ???
            raise UserError(f"{table} names {key!r}, which the preset does not have")
    for name in architecture.config.values():
        # What a Converted reads may be a key that only older files have.
        if isinstance(name, str) and select(theirs, name, unknown) is unknown:
            raise UserError(f"{table} names {name!r}, which transformers does not have")
    for name in architecture.fixed:
        if select(theirs, name, unknown) is unknown:
            raise UserError(f"{table} names {name!r}, which transformers does not have")


def match_architecture(cfg: DictConfig, model: GPT) -> tuple[Architecture, dict[str, Any]]:
    """The architecture that a composition is one of, and its configuration in transformers' words.

    Raises:
        UserError: none has these parts; names the nearest one and what it has instead.
    """
    ours = settled(cfg, model)
    nearest: tuple[Architecture, list[str]] | None = None
    fewest = (math.inf, math.inf)
    for architecture in ARCHITECTURES:
        check_table(architecture)
        preset = preset_like(architecture, ours)
        if preset is None:
            continue
        ours = own_defaults(ours, preset) | ours
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


def own_defaults(ours: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
    """The knobs of a preset that are younger than a run, at the default of the part's class."""
    found = {}
    for key in preset.keys() - ours.keys():
        part, _, knob = key.rpartition(".")
        made_by = get_object(ours[f"{part}._target_"]) if f"{part}._target_" in ours else None
        for kind in inspect.getmro(made_by) if isinstance(made_by, type) else ():
            parameter = inspect.signature(kind.__init__).parameters.get(knob)
            if parameter is not None and parameter.default is not inspect.Parameter.empty:
                found[key] = parameter.default
                break
    return found


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
        # What their configuration implies is held to what we have, as the parts are.
        for key, derive in architecture.derived.items():
            OmegaConf.update(cfg, key, derive(their_config(architecture, ours)))
        with torch.device("meta"):
            return settled(cfg, build_model(cfg))
    except (
        UserError,
        ValueError,
        KeyError,
    ):  # an impossible size, or a knob that ours lacks
        return None


@cache
def composed_preset(name: str) -> DictConfig:
    return compose([f"experiment={name}"])


def settled(cfg: DictConfig, model: GPT) -> dict[str, Any]:
    """All settings of a model by their dotted keys, a null replaced by the value it stands for."""
    cfg = cfg.copy()
    OmegaConf.resolve(cfg)
    settings = {k: v for group in ("model", *PARTS) for k, v in flat(cfg[group], group).items()}
    settings["model.embedding_scale"] = model.embedding_scale
    for key in settings:
        part, _, knob = key.partition(".")
        if settings[key] is None and part in ("attention", "ffn"):
            module = getattr(model.blocks[layer_with(key, settings)], part)
            settings[key] = getattr(module, knob.rpartition(".")[2], None)
    if "ffn.pattern" in settings:  # the options have the widths that this one stands for
        settings.pop("ffn.hidden", None)
    return settings


def layer_with(key: str, settings: dict[str, Any]) -> int:
    """The first layer that has the part of a key: of `ffn.options.moe.hidden` the first with moe.

    Where no layer has it the first one stands for it: what layers have in common has one value.
    """
    part, _, option = key.partition(".options.")
    pattern = settings.get(f"{part}.pattern") if option else None
    layer = pattern.index(option.partition(".")[0]) if pattern else 0
    return layer if layer < settings["model.n_layers"] else 0


def their_config(architecture: Architecture, ours: dict[str, Any]) -> dict[str, Any]:
    """Transformers' configuration, as nested as it is there."""
    config: dict[str, Any] = {}
    for key, theirs in architecture.config.items():
        if isinstance(theirs, Converted):
            put(config, theirs.name, theirs.theirs(ours))
        else:
            put(config, theirs, ours[key])
    for key, value in architecture.fixed_for(config).items():
        put(config, key, value)
    return config


def select(config: Config, key: str, default: Any = None) -> Any:
    """The value of a dotted key, or the default where there is none."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name, default) if isinstance(value, dict) else default
    return value


def put(config: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key, making the nested dictionaries on the way."""
    *outer, last = key.split(".")
    for name in outer:
        config = config.setdefault(name, {})
    config[last] = value
