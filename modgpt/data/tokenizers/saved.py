"""`tokenizer=saved`: a tokenizer read from a file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.byte import ByteTokenizer
from modgpt.data.tokenizers.char import CharTokenizer
from modgpt.data.tokenizers.pretrained import PretrainedTokenizer
from modgpt.errors import UserError

MOST_BYTES = 2**28  # of a file; the largest tokenizers in use have about 35 MB


def load_tokenizer(source: Any) -> Tokenizer:
    """The tokenizer from the content of a `tokenizer.json`.

    Args:
        source: untrusted content: a dictionary of `to_dict`, or the format of the library tokenizers.

    Raises:
        UserError: the content does not describe a tokenizer.
    """
    if not isinstance(source, dict):
        raise UserError(f"a tokenizer must be a JSON object, got {type(source).__name__}")
    if source.get("type") == "char":
        vocabulary = source.get("vocabulary")
        if not isinstance(vocabulary, str):
            raise UserError(
                f"the vocabulary must be one string of characters, got {type(vocabulary).__name__}"
            )
        return CharTokenizer(vocabulary)
    if source.get("type") == "byte":
        return ByteTokenizer()
    if "model" in source:
        return PretrainedTokenizer(source)
    raise UserError(
        f"unknown type of tokenizer: {source.get('type')!r} (known: 'char', 'byte', or the format "
        "of the library tokenizers)"
    )


def read_tokenizer_file(path: Path) -> Tokenizer:
    """The tokenizer in a file.

    Raises:
        UserError: the file does not exist, or does not describe a tokenizer. The message names it.
    """
    try:
        if not path.is_file():
            missing = "is not a regular file" if path.exists() else "does not exist"
            raise UserError(f"{path} {missing}: a tokenizer.json is needed")
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} is larger than {MOST_BYTES:,} bytes, too large for a tokenizer")
        source = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON ({type(error).__name__})") from error
    try:
        return load_tokenizer(source)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def saved_tokenizer(*texts: Iterable[str], path: str | None, allow_lossy: bool = False) -> Tokenizer:
    """The tokenizer in a file. It does not depend on the texts.

    Args:
        texts: the parts of the corpus.
        path: `tokenizer.json` of a run, or of another model.
        allow_lossy: read a corpus even if decode(encode(text)) differs from it.

    Raises:
        UserError: no path is given, the file does not exist, or does not describe a tokenizer.
    """
    if path is None:
        raise UserError("tokenizer=saved needs a file: tokenizer.path=FILE (a tokenizer.json)")
    tokenizer = read_tokenizer_file(Path(path).expanduser())
    tokenizer.allow_lossy = allow_lossy
    return tokenizer
