"""Folders of transformers whose configuration, weights or other files are hostile."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.hostile.targets import Payload, touch
from tests.hostile.world import World

# --- configurations --------------------------------------------------------------------------------


def theta_in_hydras_grammar(world: World) -> None:
    """Unquoted in an override, this value ran a command."""
    attack = f"{{_target_:torch.utils.collect_env.run,command:'{touch(world)}'}}"
    _rope(world, rope_theta=attack)


def theta_that_is_a_node(world: World) -> None:
    _rope(world, rope_theta={"_target_": "torch.utils.collect_env.run", "command": touch(world)})


def theta_that_is_a_list(world: World) -> None:
    _rope(world, rope_theta=[10000.0])


def theta_with_a_resolver(world: World) -> None:
    _rope(world, rope_theta="${oc.env:MODGPT_SECRET}")


def theta_of_infinity(world: World) -> None:
    _rope(world, rope_theta=float("inf"))


def theta_true(world: World) -> None:
    _rope(world, rope_theta=True)


def older_theta_in_hydras_grammar(world: World) -> None:
    attack = f"1}} +callbacks.evil={{_target_:os.system,_args_:['{touch(world)}']}}"

    def change(config: dict[str, Any]) -> None:
        config.pop("rope_parameters")
        config["rope_theta"] = attack

    _config(world, change)


def rope_type_unknown(world: World) -> None:
    _rope(world, rope_type="__import__")


def rope_of_lists(world: World) -> None:
    _set(world, rope_parameters=[["rope_theta", 1.0]])


def epsilon_in_hydras_grammar(world: World) -> None:
    _set(world, rms_norm_eps=f"{{_target_:os.system,_args_:['{touch(world)}']}}")


def epsilon_that_is_a_node(world: World) -> None:
    _set(world, rms_norm_eps={"_target_": "os.system", "_args_": [touch(world)]})


def epsilon_not_a_number(world: World) -> None:
    _set(world, rms_norm_eps=float("nan"))


def size_with_another_override(world: World) -> None:
    _set(world, hidden_size=f"16,+x={touch(world)}")


def size_that_is_negative(world: World) -> None:
    _set(world, num_attention_heads=-4)


def size_of_zero(world: World) -> None:
    _set(world, hidden_size=0)


def size_true(world: World) -> None:
    _set(world, num_hidden_layers=True)


def size_of_a_fraction(world: World) -> None:
    _set(world, hidden_size=16.5)


def a_billion_layers(world: World) -> None:
    _set(world, num_hidden_layers=10**9)


def a_width_of_a_hundred_million(world: World) -> None:
    _set(world, hidden_size=10**8)


def a_vocabulary_of_a_billion(world: World) -> None:
    _set(world, vocab_size=10**9)


def a_hidden_width_of_a_billion(world: World) -> None:
    _set(world, intermediate_size=10**9)


def an_integer_beyond_64_bits(world: World) -> None:
    _set(world, max_position_embeddings=2**100)


def pattern_of_a_billion_layers(world: World) -> None:
    _set(world, model_type="gpt_neo", attention_types=[[["global", "local"], 10**9]])


def pattern_in_hydras_grammar(world: World) -> None:
    kind = f"full],+callbacks.evil={{_target_:os.system,_args_:['{touch(world)}']}}"
    _set(world, model_type="gpt_neo", num_layers=1, attention_types=[[[kind], 1]])


def model_type_of_a_path(world: World) -> None:
    _set(world, model_type="../../secret")


def model_type_of_a_list(world: World) -> None:
    _set(world, model_type=["llama"])


def model_type_of_escape_characters(world: World) -> None:
    _set(world, model_type="\x1b[2J\nllama")


def no_model_type(world: World) -> None:
    _config(world, lambda config: config.pop("model_type"))


def code_of_its_own(world: World) -> None:
    """`auto_map` makes transformers ask whether to run the folder's own code."""
    _code(world, "configuration_evil")
    _set(world, auto_map={"AutoConfig": "configuration_evil.Evil"}, model_type="evil")


def code_of_its_own_for_a_known_model(world: World) -> None:
    _code(world, "modeling_evil")
    names = {"AutoConfig": "modeling_evil.Evil", "AutoModelForCausalLM": "modeling_evil.Evil"}
    _set(world, auto_map=names)


def code_of_another_repository(world: World) -> None:
    _set(world, auto_map={"AutoModelForCausalLM": "evil/repository--modeling.Evil"})


def code_of_a_tokenizer(world: World) -> None:
    _code(world, "tokenization_evil")
    folder = _folder(world)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("a\nb\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {"auto_map": {"AutoTokenizer": ["tokenization_evil.Evil", None]}, "tokenizer_class": "Evil"}
        )
    )


def attention_from_a_repository(world: World) -> None:
    """A kernel that transformers would download and run; with a key that is refused behind it."""
    _set(world, attn_implementation="evil/kernels", _attn_implementation="evil/kernels")
    _set(world, quantization_config={"quant_method": "evil"})


def quantization(world: World) -> None:
    _set(world, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


def layers_that_differ(world: World) -> None:
    _set(world, per_layer_config={"0": {"hidden_size": 10**9}})


def configuration_of_a_list(world: World) -> None:
    (_folder(world) / "config.json").write_text("[1, 2]")


def configuration_nested_a_hundred_thousand_deep(world: World) -> None:
    (_folder(world) / "config.json").write_text('{"x":' * 100_000 + "1" + "}" * 100_000)


def configuration_of_ten_thousand_digits(world: World) -> None:
    (_folder(world) / "config.json").write_text('{"vocab_size": ' + "9" * 10_000 + "}")


def configuration_that_never_ends(world: World) -> None:
    (_folder(world) / "config.json").unlink()
    (_folder(world) / "config.json").symlink_to("/dev/zero")


def configuration_of_half_a_gigabyte(world: World) -> None:
    with (_folder(world) / "config.json").open("r+b") as file:
        file.truncate(2**29)


def configuration_of_another_file(world: World) -> None:
    """The secret must not show up in the message."""
    (_folder(world) / "config.json").unlink()
    (_folder(world) / "config.json").symlink_to(world.secret)


# --- weights ---------------------------------------------------------------------------------------


def pickle_that_calls_os_system(world: World) -> None:
    _bin(world).write_bytes(pickle.dumps(Payload(os.system, touch(world))))


def archive_that_calls_os_system(world: World) -> None:
    torch.save({"x": Payload(os.system, touch(world))}, _bin(world))


def payload_behind_an_index(world: World) -> None:
    torch.save({"x": Payload(os.system, touch(world))}, _bin(world).with_name("part.bin"))
    (_folder(world) / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": {"x": "part.bin"}})
    )


def index_outside_the_folder(world: World) -> None:
    torch.save({"x": torch.zeros(1)}, world.folder / "outside.bin")
    _bin(world)
    (_folder(world) / "pytorch_model.bin.index.json").write_text(
        json.dumps({"weight_map": {"x": "../outside.bin"}})
    )


def index_of_an_absolute_path(world: World) -> None:
    _index(world, {"x": "/etc/passwd"})


def index_of_numbers(world: World) -> None:
    _index(world, {"x": 7})


def index_without_files(world: World) -> None:
    _index(world, {"x": "missing.safetensors"})


def two_files_with_one_tensor(world: World) -> None:
    folder = _folder(world)
    shutil.copyfile(folder / "model.safetensors", folder / "a.safetensors")
    shutil.copyfile(folder / "model.safetensors", folder / "b.safetensors")
    _index(world, {"x": "a.safetensors", "y": "b.safetensors"})


def expanded_tensor(world: World) -> None:
    weights = load_file(_folder(world) / "model.safetensors")
    weights["model.embed_tokens.weight"] = torch.zeros(1, 1).expand(10**6, 10**6)
    torch.save(weights, _bin(world))


def compressed_archive(world: World) -> None:
    path = _bin(world)
    torch.save({"x": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, bytes(2**28) if name.endswith("data/0") else content)


def names_that_are_numbers(world: World) -> None:
    torch.save({1: torch.zeros(1)}, _bin(world))


def header_of_an_exabyte(world: World) -> None:
    (_folder(world) / "model.safetensors").write_bytes(struct.pack("<Q", 2**60) + b"{}")


def header_that_claims_more(world: World) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4]}}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(4)
    (_folder(world) / "model.safetensors").write_bytes(content)


def header_nested_deep(world: World) -> None:
    header = b'{"x":' * 10_000 + b"1" + b"}" * 10_000
    content = struct.pack("<Q", len(header)) + header
    (_folder(world) / "model.safetensors").write_bytes(content)


def weights_that_never_end(world: World) -> None:
    (_folder(world) / "model.safetensors").unlink()
    (_folder(world) / "model.safetensors").symlink_to("/dev/zero")


def weights_that_nobody_writes(world: World) -> None:
    (_folder(world) / "model.safetensors").unlink()
    os.mkfifo(_folder(world) / "model.safetensors")


def no_weights(world: World) -> None:
    (_folder(world) / "model.safetensors").unlink()


def all_weights_missing(world: World) -> None:
    _weights(world, lambda weights: [weights.pop(name) for name in list(weights)[1:]])


def one_weight_missing(world: World) -> None:
    _weights(world, lambda weights: weights.pop("model.layers.0.mlp.down_proj.weight"))


def one_weight_too_many(world: World) -> None:
    _weights(world, lambda weights: weights.update({"evil\x1b[2J": torch.zeros(1)}))


def one_weight_of_another_shape(world: World) -> None:
    _weights(world, lambda weights: weights.update({"model.norm.weight": torch.zeros(3)}))


def one_weight_not_a_number(world: World) -> None:
    _weights(world, lambda weights: weights["model.norm.weight"].fill_(torch.nan))


def one_weight_infinite(world: World) -> None:
    _weights(world, lambda weights: weights["model.norm.weight"].fill_(torch.inf))


def tied_weights_that_differ(world: World) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1

    _weights(world, change)


# --- what every hostile folder is made of ----------------------------------------------------------


def _folder(world: World) -> Path:
    return world.folder / "model"


def _config(world: World, change: Callable[[dict[str, Any]], Any]) -> None:
    path = _folder(world) / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def _set(world: World, **values: Any) -> None:
    _config(world, lambda config: config.update(values))


def _rope(world: World, **values: Any) -> None:
    _config(world, lambda config: config["rope_parameters"].update(values))


def _code(world: World, module: str) -> None:
    """A module that makes the canary when it is imported."""
    (_folder(world) / f"{module}.py").write_text(f"open({str(world.canary)!r}, 'w')\nclass Evil: pass\n")


def _weights(world: World, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = _folder(world) / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def _bin(world: World) -> Path:
    """Where weights in a pickle go, once those in safetensors are away."""
    (_folder(world) / "model.safetensors").unlink(missing_ok=True)
    return _folder(world) / "pytorch_model.bin"


def _index(world: World, weight_map: Any) -> None:
    (_folder(world) / "model.safetensors").unlink()
    path = _folder(world) / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": weight_map}))
