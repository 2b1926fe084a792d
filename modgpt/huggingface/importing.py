"""Turns a folder of a model of transformers into a run: to generate from, to fine-tune."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from modgpt.config.build import build_model
from modgpt.config.check import check_arguments
from modgpt.config.compose import compose_job
from modgpt.errors import UserError
from modgpt.files import new_folder
from modgpt.huggingface import silenced
from modgpt.huggingface.architecture import Architecture
from modgpt.huggingface.configs import find_architecture, overrides_for
from modgpt.huggingface.export import check_same_logits
from modgpt.huggingface.folder import load_model, read_config, read_weights
from modgpt.huggingface.tokenizer import read_tokenizer
from modgpt.huggingface.weights import check_rules, from_theirs
from modgpt.model.cost import cost_of
from modgpt.runs.checkpoint import write_checkpoint
from modgpt.runs.provenance import now
from modgpt.runs.record import RunRecord, write_record

# Bytes that a model may have beyond its weight files, before it is refused without being built.
SLACK = 2**28


@silenced()
def import_folder(source: Path, out: Path) -> Architecture:
    """Compose the model that a folder describes, give it the folder's weights, write it as a run.

    Args:
        source: a folder as `save_pretrained` writes it; nothing is downloaded.
        out: the run's folder, which must not exist yet.

    Returns:
        The architecture of the model.

    Raises:
        UserError: the folder is no model of a known architecture, its weights or tokenizer are missing
            or damaged, or a file needs more than data; nothing has been written.
    """
    if not (source / "config.json").is_file():
        raise UserError(f"{source} is no folder of a model: it has no config.json")
    if "${" in str(out.resolve()):
        raise UserError(f"{out} cannot be written to: OmegaConf would read ${{ as an interpolation")
    weights = read_weights(source)
    their_config = read_config(source, len(weights))
    config = their_config.to_dict()
    architecture = find_architecture(config)
    job = compose_job(overrides_for(architecture, config))
    cfg = job.config
    OmegaConf.resolve(cfg)
    # The trainer's values are settled when a training starts.
    check_arguments(OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "trainer"]))
    check_size(source, cfg, weights)
    tokenizer = read_tokenizer(source, cfg.model.vocab_size)
    with open_dict(cfg):
        cfg.tokenizer = {"_target_": "modgpt.data.tokenizers.saved.saved_tokenizer", "_partial_": True,
                         "path": str((out / "tokenizer.json").resolve())}  # fmt: skip
    theirs = load_model(source, their_config, weights)
    model = build_model(cfg)
    check_rules(model, architecture.weights)
    model.load_state_dict(from_theirs(theirs.state_dict(), model, architecture.weights))
    check_same_logits(model, theirs)
    cost = cost_of(model, cfg.model.block_size)
    record = RunRecord(
        status="imported",
        choices=job.choices,
        overrides=job.overrides,
        seed=cfg.seed,
        source=str(source.resolve()),
        parameters=cost.parameters,
        active_parameters=cost.active_parameters,
        vocab_size=cfg.model.vocab_size,
        finished_at=now(),
        versions={"python": platform.python_version()}
        | {p: version(p) for p in ("modgpt", "torch", "transformers")},
    )
    content = {
        "modgpt": {"config": OmegaConf.to_container(cfg), "tokenizer": tokenizer.to_dict()},
        "state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        "global_step": 0,
    }
    with new_folder(out) as beside:
        OmegaConf.save(cfg, beside / "config.yaml")
        tokenizer.save(beside / "tokenizer.json")
        write_record(beside, record)
        (beside / "checkpoints").mkdir()
        write_checkpoint(content, beside / "checkpoints" / "last.ckpt")
    return architecture


def check_size(source: Path, cfg: DictConfig, weights: dict[str, Tensor]) -> None:
    """Refuse a configuration of a model far larger than its weights, before memory is taken.

    Raises:
        UserError: with both sizes, or the parts do not fit together.
    """
    held = sum(tensor.nbytes for tensor in weights.values())
    with torch.device("meta"):
        described = sum(4 * parameter.numel() for parameter in build_model(cfg).parameters())
    if described > 4 * held + SLACK:  # weights of one byte become fp32
        raise UserError(
            f"{source}: config.json describes a model of {described:,} bytes, the weights are {held:,}"
        )
