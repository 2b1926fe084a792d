"""Tokenizers: text to token ids and back."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Tokenizer(ABC):
    """What the rest of the code asks of a tokenizer.

    Attributes:
        unit: what a token is, in messages.
    """

    unit = "token"

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def start(self) -> str:
        """What an empty prompt stands for."""

    @abstractmethod
    def unknown(self, text: str) -> list[str]:
        """The characters of `text` that cannot be encoded, each once, in order."""

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """Token ids (N,), int64.

        Raises:
            ValueError: a character cannot be encoded; names all of them.
        """

    @abstractmethod
    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """The text of token ids."""

    def decode_stream(self, ids: Iterable[Tensor]) -> Iterator[str]:
        """The text of token ids (1,) as they come, piece by piece."""
        return map(self.decode, ids)

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain types from which `load_tokenizer` builds it again."""

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(self.to_dict(), ensure_ascii=False) + "\n", encoding="utf-8")


class CharTokenizer(Tokenizer):
    """One token per character; ids follow the sorted order of the characters, as in nanoGPT.

    Args:
        vocabulary: the characters, sorted, each once.
    """

    unit = "character"

    def __init__(self, vocabulary: str) -> None:
        self.vocabulary = vocabulary
        self.ids = {character: i for i, character in enumerate(vocabulary)}

    @classmethod
    def from_text(cls, text: str) -> CharTokenizer:
        """The tokenizer of all characters in `text`."""
        return cls("".join(sorted(set(text))))

    def __len__(self) -> int:
        return len(self.vocabulary)

    @property
    def start(self) -> str:
        """What an empty prompt stands for: the end of a line as in nanoGPT, where the text has lines."""
        return "\n" if "\n" in self.ids else self.vocabulary[0]

    def unknown(self, text: str) -> list[str]:
        return [c for c in dict.fromkeys(text) if c not in self.ids]

    def encode(self, text: str) -> Tensor:
        # Look-ups in a table by code point: a Python loop over a million characters takes a second.
        points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
        known = np.frombuffer(self.vocabulary.encode("utf-32-le"), dtype=np.uint32)
        table = np.full(int(known.max()) + 2, -1)
        table[known] = np.arange(len(known))
        ids = table[np.minimum(points, len(table) - 1)]  # the last entry stands for all beyond
        if (ids < 0).any():
            names = ", ".join(f"{c!r}" for c in self.unknown(text))
            raise ValueError(f"not in the vocabulary of {len(self)} characters: {names}")
        return torch.from_numpy(ids)

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        numbers = ids.tolist() if isinstance(ids, Tensor) else ids
        return "".join(self.vocabulary[i] for i in numbers)

    def to_dict(self) -> dict[str, Any]:
        return {"type": "char", "vocabulary": self.vocabulary}


def load_tokenizer(source: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `to_dict` described, or one in the format of the library tokenizers.

    Raises:
        ValueError: the description is of another type.
    """
    if source.get("type") == "char":
        return CharTokenizer(source["vocabulary"])
    if "model" in source:
        from modgpt.data.pretrained import PretrainedTokenizer  # its library is an extra

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
