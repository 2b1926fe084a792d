"""`tokenizer=char`: one token per character."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modgpt.data.tokenizers.base import Tokenizer


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
