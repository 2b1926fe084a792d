"""Reads the folder of a model of transformers as data: configuration and weights, never code.

Nothing is downloaded, and no text of the folder reaches a parser that could run it. Every file is
bounded: by a limit on its size, or by the sizes it declares.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from modgpt.errors import UserError
from modgpt.runs.plain_load import load_plain
from modgpt.text import visible

LARGEST_CONFIG = 2**24  # bytes
LARGEST_INTEGER = 2**31 - 1  # larger sizes overflow on the way to the model
# Keys that change the model or name code, and that no architecture here stands for.
REFUSED = {
    "auto_map": "which names code of its own; without that key transformers' own class is used",
    "quantization_config": "and quantized weights are not read; convert them to float first",
    "per_layer_config": "and all layers must be alike",
    "fusion_config": "which changes transformers' modules",
}
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
# What older versions of transformers wrote, and today's still understand.
OLDER_KEYS = {"rope_theta", "rope_scaling", "partial_rotary_factor", "rotary_pct", "rotary_emb_base"}
OLDER_KEYS |= {"n_embed", "seq_length"}
# And one that some models read without a field for it (Qwen3's mixtures).
OLDER_KEYS |= {"head_dim"}
# Common keys that have no effect on the logits.
WITHOUT_EFFECT = {field.name for field in dataclasses.fields(transformers.PreTrainedConfig)}


def read_config(source: Path, tensors: int) -> transformers.PreTrainedConfig:
    """The configuration in `config.json`, with values of the right types.

    Args:
        source: the folder.
        tensors: how many tensors its weights are, which bounds the number of layers.

    Raises:
        UserError: an unknown model, a value of the wrong type, or a key that is refused.
    """
    config = read_json(source / "config.json", LARGEST_CONFIG)
    for key, reason in REFUSED.items():
        if config.get(key) is not None:
            raise UserError(f"refused {source}: its config.json has {key!r}, {reason}")
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in transformers.CONFIG_MAPPING:
        raise UserError(f"{source}: transformers knows no model_type={short(model_type)}")
    made = transformers.CONFIG_MAPPING[model_type]
    names = {field.name for field in dataclasses.fields(made)} - WITHOUT_EFFECT
    names |= OLDER_KEYS | set(made.attribute_map) | set(made.attribute_map.values())
    check_integers(config)
    check_layers(config, tensors)
    try:
        return made(**{key: value for key, value in config.items() if key in names})
    except Exception as error:  # transformers validates with exceptions of many kinds
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"transformers refuses {source}/config.json: {visible(reason)}") from error


def check_integers(value: Any) -> None:
    """Refuse integers that no size has.

    Raises:
        UserError: names the integer.
    """
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            check_integers(inner)
    elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise UserError(f"config.json has the integer {short(value)}: at most {LARGEST_INTEGER}")


def check_layers(config: dict[str, Any], tensors: int) -> None:
    """Refuse more layers than there are tensors, before transformers makes a list of them.

    Raises:
        UserError: with both numbers.
    """
    layers = [config.get(key) for key in LAYERS]
    types = config.get("attention_types")
    for group in types if isinstance(types, list) else []:  # GPT-Neo: [[kinds, how many times], …]
        if not (isinstance(group, list) and len(group) == 2 and isinstance(group[0], list)):
            raise UserError(f"config.json has attention_types={short(types)}: not [[kinds, times], …]")
        layers.append(group[1])
    for number in layers:
        if isinstance(number, int) and number > tensors:
            raise UserError(f"config.json has {number:,} layers, the weights are {tensors:,} tensors")


def read_json(path: Path, largest: int) -> dict[str, Any]:
    """The object in a JSON file of at most `largest` bytes.

    Raises:
        UserError: the file cannot be read, is larger, or holds something else.
    """
    try:
        if not path.is_file():
            raise UserError(f"no such file: {path}")
        with path.open("rb") as file:
            text = file.read(largest + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    if len(text) > largest:
        raise UserError(f"refused {path}: it is larger than {largest:,} bytes")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} holds no JSON") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds no JSON object")
    return value


def read_weights(source: Path) -> dict[str, Tensor]:
    """The tensors in the folder's safetensors files, or else in its `pytorch_model.bin` files.

    Raises:
        UserError: there are none, one cannot be read, or one needs more than plain data.
    """
    kinds: tuple[tuple[str, Callable[[Path], Any]], ...] = (
        ("model.safetensors", read_safetensors),
        ("pytorch_model.bin", load_plain),
    )
    for name, read in kinds:
        weights: dict[str, Tensor] = {}
        for file in weight_files(source, name):
            content = read(file)
            if not isinstance(content, dict) or not all(map(is_named_tensor, content.items())):
                raise UserError(f"{file} holds something else than tensors by name")
            twice = weights.keys() & content.keys()
            if twice:
                raise UserError(f"{source}: two files hold {listed(twice)}")
            weights |= content
        if weights:
            return weights
    raise UserError(f"{source} has no weights: model.safetensors, or pytorch_model.bin")


def weight_files(source: Path, name: str) -> list[Path]:
    """The file of this name, or the files that its index lists; none where both are missing.

    Raises:
        UserError: the index is damaged, or names a file outside the folder.
    """
    if (source / name).exists():
        return [source / name]
    index = source / f"{name}.index.json"
    if not index.exists():
        return []
    shards = read_json(index, LARGEST_CONFIG * 4).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(file, str) for file in shards.values()):
        raise UserError(f"{index} has no weight_map of file names")
    names = sorted(set(shards.values()))
    for file in names:
        if Path(file).name != file or not (source / file).is_file():
            raise UserError(f"{index} names {short(file)}, which is no file of this folder")
    return [source / file for file in names]


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        UserError: the file cannot be read.
    """
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, MemoryError) as error:
        raise UserError(f"cannot read {path}: {visible(error)[:200]}") from error


def is_named_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def load_model(
    source: Path, config: transformers.PreTrainedConfig, weights: dict[str, Tensor]
) -> transformers.PreTrainedModel:
    """Transformers' own model with these weights, in fp32.

    Raises:
        UserError: weights are missing, left over, of another shape, or not finite; names some of them.
    """
    made: Any = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    try:
        model, told = made.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # to be told by name, below
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
        )
    except Exception as error:  # whatever the weights break in there
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"transformers cannot load {source}: {visible(reason)}") from error
    wrong = {
        "lack": told["missing_keys"],
        "have, with no place in the model,": told["unexpected_keys"],
        "have in another shape than config.json says": [key for key, *_ in told["mismatched_keys"]],
        "cannot be converted:": told.get("conversion_errors") or (),
    }
    for what, names in wrong.items():
        if names:
            raise UserError(f"the weights of {source} {what} {listed(names)}")
    state = model.state_dict()
    infinite = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if infinite:
        raise UserError(f"the weights of {source} are NaN or infinite in {listed(infinite)}")
    return model


def listed(names: Iterable[Any]) -> str:
    """Some of the names, and how many more there are."""
    names = sorted(map(str, names))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(visible(name)[:100] for name in names[:3]) + more
