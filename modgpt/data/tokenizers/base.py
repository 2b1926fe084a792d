"""The interface of tokenizers: text to token ids and back."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

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
