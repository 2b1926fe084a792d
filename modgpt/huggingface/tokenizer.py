"""Tokenizers: the one in a folder of transformers as ours, and ours as one of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
import transformers

from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.byte import ByteTokenizer
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.data.tokenizers.pretrained import PretrainedTokenizer
from modgpt.errors import UserError
from modgpt.huggingface.folder import read_json

LARGEST = 2**28  # bytes of a tokenizer.json
OLDER_FILES = ("vocab.*", "*.model", "*.tiktoken")  # which transformers converts


def read_tokenizer(source: Path, vocab_size: int) -> Tokenizer:
    """The folder's tokenizer; one with a word for each character, as we export, is a `CharTokenizer`.

    Args:
        source: the folder.
        vocab_size: V of the model, which every id must be below.

    Raises:
        UserError: there is none, none that the library tokenizers can read, or one with larger ids.
    """
    if (source / "tokenizer.json").exists():
        description = read_json(source / "tokenizer.json", LARGEST)
    else:
        description = converted(source)
    tokenizer = character_tokenizer(description) or pretrained_tokenizer(source, description)
    if len(tokenizer) > vocab_size:
        raise UserError(
            f"the tokenizer of {source} has {len(tokenizer):,} tokens, the model {vocab_size:,}"
        )
    return tokenizer


def converted(source: Path) -> dict[str, Any]:
    """The description of a tokenizer in older files, by transformers' own converters.

    Raises:
        UserError: there are none, or none that can be converted without code from the folder.
    """
    advice = "put its tokenizer.json beside the weights"
    if not any(file for pattern in OLDER_FILES for file in source.glob(pattern)):
        raise UserError(f"{source} has no tokenizer that can be read: {advice}")
    try:
        found = transformers.AutoTokenizer.from_pretrained(
            source, trust_remote_code=False, local_files_only=True
        )
        return json.loads(found.backend_tokenizer.to_str())
    except Exception as error:  # damaged files break the converters in any way
        raise UserError(
            f"{source} has no tokenizer that can be read ({type(error).__name__}): {advice}"
        ) from error


def character_tokenizer(description: dict[str, Any]) -> CharTokenizer | None:
    """The tokenizer by characters that a description of ours stands for, None where it is another."""
    model = description.get("model")
    words = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(words, dict) or not all(len(word) == 1 for word in words):
        return None
    characters = "".join(sorted(words))
    if not words or [words[c] for c in characters] != list(range(len(words))):
        return None
    tokenizer = CharTokenizer(characters)
    ours = json.loads(library_tokenizer(tokenizer).to_str())
    # transformers adds a post-processor, which puts special tokens around a text: none here.
    return (
        tokenizer if ours | {"post_processor": None} == description | {"post_processor": None} else None
    )


def pretrained_tokenizer(source: Path, description: dict[str, Any]) -> PretrainedTokenizer:
    """The tokenizer that the library tokenizers makes of a description.

    Raises:
        UserError: the library refuses it.
    """
    try:
        return PretrainedTokenizer(description)
    except UserError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the library raises Exception, and panics as BaseException
        raise UserError(f"{source}/tokenizer.json is not readable ({type(error).__name__})") from error


def wrapped(tokenizer: Tokenizer, length: int) -> transformers.PreTrainedTokenizerFast:
    """Our tokenizer as one of transformers, with the same ids and the same text."""
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=library_tokenizer(tokenizer),
        clean_up_tokenization_spaces=False,
        model_max_length=length,
    )


def library_tokenizer(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
    """Our tokenizer as one of the library tokenizers; one by characters has a word for each."""
    if isinstance(tokenizer, ByteTokenizer):
        return byte_tokenizer()
    if not isinstance(tokenizer, CharTokenizer):
        return tokenizers.Tokenizer.from_str(json.dumps(tokenizer.to_dict()))
    fast = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab=dict(tokenizer.ids)))
    every = tokenizers.Regex(r"[\s\S]")
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Split(every, behavior="isolated")
    fast.decoder = tokenizers.decoders.Fuse()  # no spaces between the characters
    return fast


def byte_tokenizer() -> tokenizers.Tokenizer:
    """Byte-level BPE without merges, in which the id of a byte is its value."""
    # The library writes a byte as one printable character: its own where that is printable.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    written = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
    fast = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=written, merges=[]))
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = tokenizers.decoders.ByteLevel()
    return fast
