"""A run as a folder that `transformers.AutoModelForCausalLM.from_pretrained` opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.huggingface.configs import match_architecture
from modgpt.huggingface.tables import Architecture
from modgpt.huggingface.weights import to_theirs
from modgpt.model.gpt import GPT
from modgpt.runs.files import new_folder
from modgpt.runs.folder import Run

SAME = 1e-4  # logits, of the folder as it is read again


def export(run: Run, out: Path) -> Architecture:
    """Write model and tokenizer, read them again and compare.

    Args:
        run: what to export.
        out: the folder, which must not exist yet.

    Returns:
        The architecture in which transformers knows the composition.

    Raises:
        UserError: transformers has no architecture of these parts, or the folder exists; nothing has
            been written.
    """
    architecture, config = match_architecture(run.config, run.model)
    special: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.CONFIG_MAPPING[architecture.model_type](**config, **special)
    )
    theirs.load_state_dict(to_theirs(run.model, architecture.weights))
    with new_folder(out) as beside:
        theirs.save_pretrained(beside)
        wrapped(run.tokenizer, run.model.block_size).save_pretrained(beside)
        check_same(run.model, transformers.AutoModelForCausalLM.from_pretrained(beside))
    return architecture


def wrapped(tokenizer: Tokenizer, length: int) -> transformers.PreTrainedTokenizerFast:
    """Our tokenizer as one of transformers, which gives the same ids and the same text."""
    if isinstance(tokenizer, CharTokenizer):
        fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab=dict(tokenizer.ids)))
        every = tokenizers.Regex(r"[\s\S]")
        fast.pre_tokenizer = tokenizers.pre_tokenizers.Split(every, behavior="isolated")
        fast.decoder = tokenizers.decoders.Fuse()  # no spaces between the characters
    else:
        fast = tokenizers.Tokenizer.from_str(json.dumps(tokenizer.to_dict()))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=fast, clean_up_tokenization_spaces=False, model_max_length=length
    )


@torch.no_grad()
def check_same(ours: GPT, theirs: Any) -> None:
    """Hold what was written to the model it was made of: a folder that is wrong is no export."""
    vocabulary, length = ours.embedding.num_embeddings, min(64, ours.block_size)
    ids = torch.randint(vocabulary, (1, length), generator=torch.Generator().manual_seed(0))
    off = (theirs.eval()(ids).logits - ours.eval()(ids)).abs().max().item()
    if not off <= SAME:
        raise RuntimeError(f"transformers' logits are off by {off:.2g}: nothing has been written")
