"""The folder of a run: made without overwriting anything, recorded as it goes, loaded again.

config.yaml      the resolved configuration, from which the model alone can be rebuilt
tokenizer.json   the vocabulary
result.json      the record, from the first moment on
checkpoints/     best.ckpt (by val/loss) and last.ckpt
metrics.csv      what was logged, beside TensorBoard's event file
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from modgpt.config.build import build_model
from modgpt.config.compose import label
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.saved import load_tokenizer
from modgpt.errors import UserError
from modgpt.model.gpt import GPT
from modgpt.runs.checkpoint import has_checkpoint, load_weights, read_checkpoint
from modgpt.runs.record import read_result


@dataclass
class Run:
    """A trained model with what it was trained from and what came of it."""

    model: GPT
    tokenizer: Tokenizer
    config: DictConfig
    result: dict[str, Any]
    path: Path


def claim_folder(cfg: DictConfig, choices: dict[str, str]) -> Path:
    """Make the run's folder, one that did not exist before.

    Raises:
        UserError: the name asked for is taken, or no name for a folder.
    """
    parent, name = Path(cfg.output_dir), cfg.run_name
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {parent}: {error.strerror}") from error
    if name is not None:
        if not name or name in (".", "..") or "/" in name or "\0" in name:
            raise UserError(f"run_name={name!r} cannot name a folder: leave out slashes")
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
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{label(choices)}-s{cfg.seed}"
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):  # others may start in the same second
        try:
            (parent / f"{stem}{suffix}").mkdir()
        except FileExistsError:
            continue
        return parent / f"{stem}{suffix}"
    raise UserError(f"{parent} has a thousand runs named {stem}")


def load_run(path: str | Path, checkpoint: str | None = None) -> Run:
    """Load a run's model, on the CPU and ready to generate.

    Args:
        path: the run's folder, or a checkpoint file, which needs nothing beside it.
        checkpoint: `best` or `last`; None for the best there is.

    Raises:
        UserError: no run there, no checkpoint yet, or a file that is refused.
    """
    path = Path(path)
    if path.is_file():
        return load_checkpoint(path, {})
    result = read_result(path)
    names = ["best", "last"] if checkpoint is None else [checkpoint]
    for name in names:
        file = path / "checkpoints" / f"{name}.ckpt"
        if file.exists():
            return load_checkpoint(file, result)
    raise UserError(f"{path} has no {' or '.join(names)} checkpoint yet")


def load_checkpoint(file: Path, result: dict[str, Any]) -> Run:
    """The run in a single checkpoint file."""
    content = read_checkpoint(file)
    config = OmegaConf.create(content["modgpt"]["config"])
    assert isinstance(config, DictConfig)
    model = build_model(config)
    load_weights(model, content, file)
    model.eval()
    tokenizer = load_tokenizer(content["modgpt"]["tokenizer"])
    return Run(model, tokenizer, config, result, file.parent.parent)


def newest_finished(outputs: Path) -> Path:
    """The folder of the run that finished last, of all below `outputs`.

    Raises:
        UserError: there is none.
    """
    finished = {}
    for file in outputs.glob("**/result.json"):
        try:
            result = read_result(file.parent)
        except UserError:
            continue  # not ours, or being removed
        if result.get("status") == "finished":
            finished[file.parent] = str(result["finished_at"])
    if not finished:
        raise UserError(f"no finished run below {outputs}: train one with modgpt train")
    return max(finished, key=lambda folder: finished[folder])
