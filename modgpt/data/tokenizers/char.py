"""`tokenizer=char`: one token per character."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modgpt.data.corpus import Part
from modgpt.data.tokenizers.base import Tokenizer, listed
from modgpt.errors import UserError


class CharTokenizer(Tokenizer):
    """One token per character: the id of a character is its index in the vocabulary.

    The vocabulary is sorted, as in nanoGPT. The tokenizer is lossless for every text of these
    characters, and refuses a text with others.

    Args:
        vocabulary: the characters, each once.

    Raises:
        UserError: the vocabulary is empty, has a character twice, or has half of a surrogate pair.
    """

    unit = "character"
    lossless = True
    cuts = True

    def __init__(self, vocabulary: str) -> None:
        self.vocabulary = vocabulary
        self.ids = {character: i for i, character in enumerate(vocabulary)}
        if not vocabulary:
            raise UserError("the vocabulary is empty: it needs at least one character")
        if len(self.ids) < len(vocabulary):
            twice = [c for c, n in Counter(vocabulary).items() if n > 1]
            raise UserError(f"the vocabulary has {listed(twice)} more than once")
        broken = [c for c in vocabulary if is_surrogate(c)]
        if broken:
            raise UserError(f"the vocabulary has {listed(broken)}, which no text can contain")

    @classmethod
    def from_text(cls, *texts: Part | str) -> CharTokenizer:
        """The tokenizer of all characters of a corpus.

        The vocabulary comes from all parts, as in nanoGPT, so that losses are comparable.

        Args:
            texts: the parts of a corpus, or texts.
        """
        characters = set[str]()
        for text in texts:
            characters.update(text.alphabet if isinstance(text, Part) else text)
        return cls("".join(sorted(characters)))

    def __len__(self) -> int:
        return len(self.vocabulary)

    @property
    def start(self) -> str:
        """A new line, as in nanoGPT; the first character if the vocabulary has no new line."""
        return "\n" if "\n" in self.ids else self.vocabulary[0]

    def unknown(self, text: str) -> list[str]:
        return [c for c in dict.fromkeys(text) if c not in self.ids]

    def encode(self, text: str) -> Tensor:
        # A table indexed by code point: a Python loop over a million characters takes a second.
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        known = np.frombuffer(self.vocabulary.encode("utf-32-le"), dtype=np.uint32)
        table = np.full(int(known.max()) + 2, -1)
        table[known] = np.arange(len(known))
        ids = table[np.minimum(points, len(table) - 1)]  # the last entry is for all larger code points
        if (ids < 0).any():
            raise UserError(
                f"not in the vocabulary of {len(self)} characters: {listed(self.unknown(text))}"
            )
        return torch.from_numpy(ids)

    def decode(self, ids: Iterable[int] | Tensor) -> str:
        numbers = ids.tolist() if isinstance(ids, Tensor) else ids
        return "".join(self.vocabulary[i] for i in numbers)

    def decode_stream(self, ids: Iterable[Tensor], prompt: Tensor | None = None) -> Iterator[str]:
        return map(self.decode, ids)  # each character is decoded alone

    def to_dict(self) -> dict[str, Any]:
        return {"type": "char", "vocabulary": self.vocabulary}


def is_surrogate(character: str) -> bool:
    """Whether a character is half of a surrogate pair, which UTF-8 cannot encode."""
    return "\ud800" <= character <= "\udfff"
