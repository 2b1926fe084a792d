"""The folder of a run: made without overwriting anything, recorded as it goes, loaded again.

config.yaml      the resolved configuration, from which the model alone can be rebuilt
tokenizer.json   the vocabulary
result.json      the record, from the first moment on
checkpoints/     best.ckpt (by val/sampled_loss) and last.ckpt
validation.npz   the losses of the latest validation, window by window
metrics.csv      what was logged, beside TensorBoard's event file
trackers.json    the ids of the run in its trackers, such as MLflow
sample.txt       text that the model generated at the last validation
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from modgpt.config.build import build_model
from modgpt.config.compose import label
from modgpt.config.keys import KEYS
from modgpt.config.overrides import shortened
from modgpt.config.seeds import seed_in_name
from modgpt.config.trust import check_foreign
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.saved import load_tokenizer
from modgpt.errors import UserError
from modgpt.model.gpt import GPT
from modgpt.runs.checkpoint import has_checkpoint, model_weights, read_checkpoint
from modgpt.runs.record import RunRecord, read_record

LONGEST_NAME = 255  # bytes, of the file systems in use


@dataclass
class Run:
    """A trained model with what it was trained from and what came of it."""

    model: GPT
    tokenizer: Tokenizer
    config: DictConfig
    record: RunRecord | None  # None for a lone checkpoint file
    path: Path


def claim_folder(cfg: DictConfig, choices: dict[str, str]) -> Path:
    """Make the run's folder, one that did not exist before.

    Raises:
        UserError: the name asked for is taken, or no name for a folder.
    """
    parent, name = Path(cfg.output_dir), cfg.run_name
    if name is not None:
        check_name("run_name", name)
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {parent}: {error.strerror}") from error
    if name is not None:
        try:
            (parent / name).mkdir()
        except FileExistsError:
            if has_checkpoint(parent / name):
                what = f"go on with it by resume={parent / name}"
            else:
                what = "remove it: it has no checkpoint to go on from"
            raise UserError(f"{parent / name} exists: choose another run_name, or {what}") from None
        except OSError as error:
            raise UserError(f"cannot make {parent / name}: {error.strerror}") from error
        return parent / name
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{label(choices)}-{seed_in_name(cfg)}"
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):  # others may start in the same second
        try:
            (parent / f"{stem}{suffix}").mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"cannot make a folder in {parent}: {error.strerror}") from error
        return parent / f"{stem}{suffix}"
    raise UserError(f"{parent} has a thousand runs named {stem}")


def check_name(key: str, name: str) -> None:
    """Refuse what cannot be the name of a folder.

    Args:
        key: that gives the name, for the message.
        name: as it was given.

    Raises:
        UserError: it is empty, too long, or names a place elsewhere.
    """
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise UserError(f"{key}={name!r} cannot name a folder: leave out slashes")
    length = len(os.fsencode(name))
    if length > LONGEST_NAME:
        most = f"the name of a folder at most {LONGEST_NAME}"
        raise UserError(f"{key} has {length} bytes, and {most}: {shortened(name)}")


def load_run(path: str | Path, checkpoint: str | None = None, trust: Sequence[str] = ()) -> Run:
    """Load a run's model, on the CPU and ready to generate.

    Args:
        path: the run's folder, or a checkpoint file, which needs nothing beside it.
        checkpoint: `best` or `last`; None for the best there is.
        trust: packages of yours whose classes the run may name, such as `["mypackage"]`.

    Raises:
        UserError: no run there, no checkpoint yet, or a file that is refused.
    """
    path = Path(path)
    if path.is_file():
        return load_checkpoint(path, None, trust)
    record = read_record(path)
    names = ["best", "last"] if checkpoint is None else [checkpoint]
    for name in names:
        file = path / "checkpoints" / f"{name}.ckpt"
        if file.exists():
            return load_checkpoint(file, record, trust)
    raise UserError(f"{path} has no {' or '.join(names)} checkpoint yet")


def load_checkpoint(file: Path, record: RunRecord | None, trust: Sequence[str] = ()) -> Run:
    """The run in a single checkpoint file: its configuration is checked before anything is built.

    Raises:
        UserError: the file is refused, or its weights are not those of the model it describes.
    """
    content = read_checkpoint(file)
    described, weights = content["modgpt"], model_weights(content)
    if not isinstance(described, dict) or not {"config", "tokenizer"} <= described.keys():
        raise UserError(f"{file} is damaged: it does not say which model and tokenizer it holds")
    config = check_foreign(described["config"], str(file), trust)
    for group in (name for name, key in KEYS.items() if key.type is None and key.required):
        if not isinstance(config.get(group), DictConfig):
            raise UserError(f"{file} is damaged: its configuration has no {group}")
    check_weights(config, weights, file)
    model = build_model(config)
    model.load_state_dict(weights)
    model.eval()
    tokenizer = tokenizer_in(content, file)
    if len(tokenizer) > config.model.vocab_size:
        raise UserError(
            f"{file} is damaged: its tokenizer has {len(tokenizer):,} tokens, its model "
            f"{config.model.vocab_size:,}"
        )
    return Run(model, tokenizer, config, record, file.parent.parent)


def tokenizer_in(content: dict[str, Any], file: Path) -> Tokenizer:
    """The tokenizer in the content of a checkpoint.

    Raises:
        UserError: there is none, or none that can be built.
    """
    described = content.get("modgpt")
    if not isinstance(described, dict) or "tokenizer" not in described:
        raise UserError(f"{file} is damaged: it holds no tokenizer")
    return load_tokenizer(described["tokenizer"])


def check_weights(config: DictConfig, weights: dict[str, Any], file: Path) -> None:
    """Refuse weights that are not those of the configuration's model, before any memory is taken.

    Raises:
        UserError: names the first weight that does not fit.
    """
    layers = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    if config.model.get("n_layers") != len(layers):
        raise UserError(
            f"{file} is damaged: it has the weights of {len(layers)} layers, and its configuration says "
            f"model.n_layers={config.model.get('n_layers')}"
        )
    for name, tensor in weights.items():
        if not isinstance(tensor, torch.Tensor):
            raise UserError(f"{file} is damaged: {name[:80]} is not a tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{file} is damaged: {name[:80]} claims more values than it holds")
    with torch.device("meta"):  # shapes without memory
        expected = {n: tuple(t.shape) for n, t in build_model(config).state_dict().items()}
    for name in sorted(expected.keys() | weights.keys()):
        found = tuple(weights[name].shape) if name in weights else "missing"
        wanted = expected.get(name, "unknown")
        if found != wanted:
            raise UserError(
                f"{file} is damaged: the weight {name[:80]} is {found}, and the model has it as {wanted}"
            )


def newest_finished(outputs: Path) -> Path:
    """The folder of the run that finished last, of all below `outputs`.

    Raises:
        UserError: there is none.
    """
    finished = {}
    for file in outputs.glob("**/result.json"):
        try:
            record = read_record(file.parent)
        except UserError:
            continue  # not ours, or being removed
        if record.status == "finished":
            finished[file.parent] = str(record.finished_at)
    if not finished:
        raise UserError(f"no finished run below {outputs}: train one with modgpt train")
    return max(finished, key=lambda folder: finished[folder])
