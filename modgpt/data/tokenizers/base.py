"""The interface of tokenizers: text to token ids and back."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # what bytes decode to that are no UTF-8
MOST_HELD = 16  # tokens that may stay undecided: a character has four bytes at most


class Tokenizer(ABC):
    """A map from text to token ids and back.

    A tokenizer is lossless for a text when decode(encode(text)) == text. A corpus must be read without
    loss (`check_lossless`), unless `allow_lossy` is set.

    Attributes:
        unit: what a token is, in messages.
        allow_lossy: whether a corpus may be read that does not come back as it was.
    """

    unit = "token"
    allow_lossy = False

    @abstractmethod
    def __len__(self) -> int:
        """V: every id lies below it."""

    @property
    @abstractmethod
    def start(self) -> str:
        """The text that an empty prompt stands for."""

    @abstractmethod
    def unknown(self, text: str) -> list[str]:
        """The characters of `text` that cannot be encoded, each once, in order."""

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """Token ids (N,), int64.

        Raises:
            UserError: a character cannot be encoded.
        """

    @abstractmethod
    def decode(self, ids: Iterable[int] | Tensor) -> str:
        """The text of token ids."""

    @abstractmethod
    def characters(self, text: str, first: Tensor) -> int:
        """How many characters of `text` its first tokens stand for: ids (n,) of encode(text)."""

    def decode_stream(self, ids: Iterable[Tensor], prompt: Tensor | None = None) -> Iterator[str]:
        """The text that token ids add to a prompt's, in pieces as they come.

        The pieces together are decode(prompt + ids) without decode(prompt) at its beginning. Decoding
        the ids alone would lose the space before the first word, with tokens that hold it.

        A piece ends with a whole character: the bytes of one may come in several tokens. Only the tokens
        since the last such end are decoded again, so that the time is linear in the number of tokens.

        Args:
            ids: (1,) each, as they come.
            prompt: (T,) ids that were read before; None for none.
        """
        window: list[int] = [] if prompt is None else prompt.tolist()
        shown, text, new = len(self.decode(window)), "", 0  # characters of the window's text; tokens
        for token in ids:
            window.append(int(token))
            new += 1
            text = self.decode(window)
            whole = text if new > MOST_HELD else text.rstrip(REPLACEMENT)
            if len(whole) > shown:
                yield whole[shown:]
                shown = len(whole)
            # The next token is decoded behind these: it is not the first one, and keeps its space.
            if whole == text and (tail := self.decode(window[-new:])):
                window, text, shown, new = window[-new:], tail, len(tail), 0
        if len(text) > shown:
            yield text[shown:]

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain types from which `load_tokenizer` builds it again."""

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(self.to_dict(), ensure_ascii=False) + "\n", encoding="utf-8")


def listed(characters: Iterable[str], most: int = 12) -> str:
    """Characters as a message names them, the first few of many."""
    names = [repr(character) for character in characters]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
