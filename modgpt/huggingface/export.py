"""Writes a run as a folder that `transformers.AutoModelForCausalLM.from_pretrained` opens."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
import transformers

from modgpt.data.tokenizers.base import Tokenizer
from modgpt.errors import UserError
from modgpt.files import new_folder
from modgpt.huggingface import silenced
from modgpt.huggingface.architecture import Architecture
from modgpt.huggingface.configs import match_architecture
from modgpt.huggingface.tokenizer import library_tokenizer, wrapped
from modgpt.huggingface.weights import check_rules, to_theirs
from modgpt.model.gpt import GPT
from modgpt.runs.folder import Run

TOLERANCE = 1e-4  # of logits, ours against those of transformers


@silenced()
def export(run: Run, out: Path) -> Architecture:
    """Write model and tokenizer, read them again and compare the logits.

    Args:
        run: what to export.
        out: the folder, which must not exist yet.

    Returns:
        The architecture that transformers opens it as.

    Raises:
        UserError: transformers has no architecture of these parts, the logits differ, or the folder
            exists; nothing has been written.
    """
    architecture, config = match_architecture(run.config, run.model)
    check_rules(run.model, architecture.weights)
    special: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.CONFIG_MAPPING[architecture.model_type](**config, **special)
    )
    theirs.load_state_dict(to_theirs(run.model, architecture.weights))
    with new_folder(out) as beside:
        theirs.save_pretrained(beside)
        wrapped(run.tokenizer, run.model.block_size).save_pretrained(beside)
        again = transformers.AutoModelForCausalLM.from_pretrained(
            beside, local_files_only=True, trust_remote_code=False
        )
        check_same_logits(run.model, again)
        with_ordinary_permissions(beside)
    return architecture


def with_ordinary_permissions(folder: Path) -> None:
    """Give the files of a folder the permissions that the user's umask asks for.

    safetensors makes files that only their owner can read.
    """
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.rglob("*"):
        path.chmod((0o777 if path.is_dir() else 0o666) & ~umask)


@torch.no_grad()
def check_same_logits(ours: GPT, theirs: Any) -> None:
    """Compare the logits of both models on random tokens.

    Raises:
        UserError: they differ by more than the tolerance.
    """
    vocabulary, length = ours.embedding.num_embeddings, min(64, ours.block_size)
    ids = torch.randint(vocabulary, (1, length), generator=torch.Generator().manual_seed(0))
    off = (theirs.eval()(ids).logits - ours.eval()(ids)).abs().max().item()
    if not off <= TOLERANCE:
        raise UserError(f"transformers' logits differ by {off:.2g}: nothing has been written")


def tokenizer_class(out: Path, tokenizer: Tokenizer) -> str:
    """The class of transformers that opens the tokenizer of an exported folder as it is.

    That is AutoTokenizer, except for the few architectures (qwen2) for which it makes a tokenizer of
    their own in any case.
    """
    found = transformers.AutoTokenizer.from_pretrained(
        out, local_files_only=True, trust_remote_code=False
    )
    same = json.loads(library_tokenizer(tokenizer).to_str())
    read = json.loads(found.backend_tokenizer.to_str())
    kept = all(read[step] == same[step] for step in ("model", "normalizer", "pre_tokenizer", "decoder"))
    return "AutoTokenizer" if kept else "PreTrainedTokenizerFast"
