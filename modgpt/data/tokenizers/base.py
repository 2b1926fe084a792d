"""The interface of tokenizers: text to token ids and back."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # invalid UTF-8 decodes to this
MOST_HELD = 16  # tokens to wait for the rest of a character, which has four bytes at most


class Tokenizer(ABC):
    """A map from text to token ids and back.

    A tokenizer is lossless for a text if decode(encode(text)) == text. It must be lossless for the
    corpus (`check_lossless`), unless `allow_lossy` is set.

    Attributes:
        unit: the name of a token in messages.
        allow_lossy: whether decode(encode(corpus)) may differ from the corpus.
        lossless: it is lossless for every text that it encodes, so nothing needs to be checked.
        cuts: a text that is cut before white space has the ids of the whole text.
    """

    unit = "token"
    allow_lossy = False
    lossless = False
    cuts = False

    @abstractmethod
    def __len__(self) -> int:
        """V; all ids are smaller."""

    @property
    def end_of_text(self) -> int | None:
        """The id that ends a document; None if there is none."""
        return None

    @property
    @abstractmethod
    def start(self) -> str:
        """The text that replaces an empty prompt."""

    @abstractmethod
    def unknown(self, text: str) -> list[str]:
        """The characters of `text` that cannot be encoded, each once, in order of appearance."""

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """Token ids (N,), int64.

        Raises:
            UserError: a character cannot be encoded.
        """

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.integer]]:
        """Token ids (N,) of every text.

        Raises:
            UserError: a character cannot be encoded.
        """
        return [self.encode(text).numpy() for text in texts]

    @abstractmethod
    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """The text of token ids."""

    def decode_stream(self, ids: Iterable[Tensor], prompt: Tensor | None = None) -> Iterator[str]:
        """Yield the text of new token ids piece by piece, as it continues the text of a prompt.

        The pieces together are decode(prompt + ids) without decode(prompt) at the start. Decoding the
        ids alone would lose the space before the first word, with tokenizers that store it in the word.

        A piece ends with a complete character: one character may take several tokens. Only the tokens
        since the last complete character are decoded again, so the time is linear in their number.

        Args:
            ids: (1,) each, one after the other.
            prompt: (T,) ids before them; None for none.
        """
        window: list[int] = [] if prompt is None else prompt.tolist()
        shown, text, new = len(self.decode(window)), "", 0  # characters shown; text; new tokens
        for token in ids:
            window.append(int(token))
            new += 1
            text = self.decode(window)
            whole = text if new > MOST_HELD else text.rstrip(REPLACEMENT)
            if len(whole) > shown:
                yield whole[shown:]
                shown = len(whole)
            # Keep these tokens in front of the next one: the first token of a text can lose its space.
            if whole == text and (tail := self.decode(window[-new:])):
                window, text, shown, new = window[-new:], tail, len(tail), 0
        if len(text) > shown:
            yield text[shown:]

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """A dictionary of plain types, from which `load_tokenizer` builds the tokenizer again."""

    def save(self, path: Path) -> None:
        """Write the tokenizer as JSON."""
        path.write_text(json.dumps(self.to_dict(), ensure_ascii=False) + "\n", encoding="utf-8")


def listed(characters: Iterable[str], most: int = 12) -> str:
    """Characters quoted for a message; at most `most` of them, then the number of the others."""
    names = [repr(character) for character in characters]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
