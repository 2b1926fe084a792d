"""A folder of a model of transformers as a run: to generate from, to fine-tune."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch
import transformers
from omegaconf import OmegaConf, open_dict

from modgpt.config.build import build_model
from modgpt.config.compose import compose_job
from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.data.tokenizers.pretrained import PretrainedTokenizer
from modgpt.errors import UserError
from modgpt.huggingface.configs import find_architecture, overrides_for
from modgpt.huggingface.tables import Architecture
from modgpt.huggingface.weights import from_theirs
from modgpt.model.cost import cost_of
from modgpt.runs.checkpoint import AtomicCheckpointIO
from modgpt.runs.files import new_folder
from modgpt.runs.provenance import now
from modgpt.runs.record import RunRecord, write_record

TOKENIZERS = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken")  # files that hold one


def import_folder(source: Path, out: Path) -> Architecture:
    """Compose the model that a folder describes, give it the folder's weights, write it as a run.

    Args:
        source: a folder as `save_pretrained` writes it; nothing is downloaded.
        out: the run's folder, which must not exist yet.

    Returns:
        The architecture it is.

    Raises:
        UserError: no such folder, no tokenizer in it, or a model whose parts are not here; nothing has
            been written.
    """
    if not (source / "config.json").is_file():
        raise UserError(f"{source} is no folder of a model: it has no config.json")
    config = transformers.AutoConfig.from_pretrained(source).to_dict()
    architecture = find_architecture(config)
    tokenizer = read_tokenizer(source)
    job = compose_job([*overrides_for(architecture, config), f"run_name={out.name!r}"])
    cfg = job.config
    with open_dict(cfg):
        cfg.tokenizer = {"_target_": "modgpt.data.tokenizers.saved.saved_tokenizer", "_partial_": True,
                         "path": str((out / "tokenizer.json").resolve())}  # fmt: skip
    OmegaConf.resolve(cfg)
    model = build_model(cfg)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    model.load_state_dict(from_theirs(theirs.state_dict(), model, architecture.weights))
    cost = cost_of(model, cfg.model.block_size)
    record = RunRecord(
        status="imported",
        choices=job.choices,
        overrides=job.overrides[:-1],
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
        AtomicCheckpointIO().save_checkpoint(content, beside / "checkpoints" / "last.ckpt")
    return architecture


def read_tokenizer(source: Path) -> Tokenizer:
    """The folder's tokenizer; one word per character, as of our exports, is a `CharTokenizer`.

    Raises:
        UserError: there is none, or none that the library tokenizers can hold.
    """
    try:
        if not any(file for pattern in TOKENIZERS for file in source.glob(pattern)):
            raise FileNotFoundError  # transformers would make an empty one
        found = transformers.AutoTokenizer.from_pretrained(source)
        description = json.loads(found.backend_tokenizer.to_str())
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise UserError(
            f"{source} has no tokenizer that can be read ({type(error).__name__}): put its "
            "tokenizer.json beside the weights"
        ) from error
    model = description["model"]
    if model["type"] == "WordLevel" and all(len(word) == 1 for word in model["vocab"]):
        characters = sorted(model["vocab"], key=model["vocab"].__getitem__)
        if characters == sorted(characters):
            return CharTokenizer("".join(characters))
    return PretrainedTokenizer(description)
