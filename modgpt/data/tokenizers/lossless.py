"""The check that decode(encode(text)) equals the text."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from modgpt.data.tokenizers.base import Tokenizer
from modgpt.errors import UserError

AROUND = 12  # characters shown after the first difference


class LosslessCheck:
    """Refuses a tokenizer that changes the text; with `allow_lossy`, prints a note once instead.

    A model need not predict what a lossy tokenizer drops, so its loss looks better than it is.

    Args:
        tokenizer: the tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.told = tokenizer, tokenizer.lossless

    def __call__(
        self, texts: Sequence[str], ids: Sequence[NDArray[np.integer]], start: int, at_cut: bool
    ) -> None:
        """Compare texts with their ids as text again.

        Args:
            texts: one after the other in the corpus.
            ids: of each text.
            start: the character of the corpus with which the first one begins.
            at_cut: the corpus is cut there. Then a space may be lost: many tokenizers store it in the
                first word, and drop it at the beginning of a text.

        Raises:
            UserError: a text differs. The message shows the first difference.
        """
        for text, tokens in zip(texts, ids, strict=True):
            if self.told:
                return
            decoded = self.tokenizer.decode(tokens.tolist())
            if not (at_cut and text == f" {decoded}"):
                self.tell(first_difference(text, decoded, start))
            start, at_cut = start + len(text), False

    def tell(self, difference: str | None) -> None:
        """Refuse or print a difference."""
        if difference is None:
            return
        message = f"the tokenizer changes the text: {difference}"
        if not self.tokenizer.allow_lossy:
            raise UserError(f"{message}; tokenizer.allow_lossy=true allows it")
        from lightning.fabric.utilities.rank_zero import rank_zero_only  # takes seconds to import

        self.told = True
        rank_zero_only(print)(f"note: {message} (tokenizer.allow_lossy=true)", file=sys.stderr)


def first_difference(text: str, decoded: str, start: int = 0) -> str | None:
    """A description of the first difference of two texts; None if they are equal.

    Args:
        text: of the corpus.
        decoded: what came back.
        start: the character of the corpus with which the text begins.
    """
    if text == decoded:
        return None
    pairs = zip(text, decoded, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(text), len(decoded)))
    before, after = (repr(t[at : at + AROUND]) for t in (text, decoded))
    return f"from character {start + at} on {before} comes back as {after}"
