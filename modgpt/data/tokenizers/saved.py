"""Tokenizers read from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modgpt.data.tokenizers.base import Tokenizer
from modgpt.data.tokenizers.char import CharTokenizer


def load_tokenizer(source: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `to_dict` described, or one in the format of the library tokenizers.

    Raises:
        ValueError: the description is of another type.
    """
    if source.get("type") == "char":
        return CharTokenizer(source["vocabulary"])
    if "model" in source:
        from modgpt.data.tokenizers.pretrained import PretrainedTokenizer  # its library is an extra

        return PretrainedTokenizer(source)
    raise ValueError(f"unknown type of tokenizer: {source.get('type')!r}")


def saved_tokenizer(text: str, *, path: str) -> Tokenizer:
    """`tokenizer=saved`: the one in a file, whatever the text.

    Args:
        text: of the corpus.
        path: `tokenizer.json` of a run, or of a model from elsewhere.

    Raises:
        ValueError: no such file, or none that holds a tokenizer.
    """
    try:
        return load_tokenizer(json.loads(Path(path).expanduser().read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"cannot read tokenizer.path={path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"tokenizer.path={path} holds no JSON") from error
