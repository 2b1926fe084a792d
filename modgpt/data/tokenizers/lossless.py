"""The check that decode(encode(text)) equals the text."""

from __future__ import annotations

import sys

from lightning.fabric.utilities.rank_zero import rank_zero_only

from modgpt.data.tokenizers.base import Tokenizer
from modgpt.errors import UserError

AROUND = 12  # characters shown after the first difference


def check_lossless(tokenizer: Tokenizer, text: str, decoded: str) -> None:
    """Refuse a tokenizer that changes the text; with `allow_lossy`, print a note instead.

    A model need not predict what a lossy tokenizer drops, so its loss looks better than it is.

    Args:
        tokenizer: the tokenizer.
        text: the corpus.
        decoded: its tokens as text again.

    Raises:
        UserError: it differs from the text. The message shows the first difference.
    """
    difference = first_difference(text, decoded)
    if difference is None:
        return
    message = f"the tokenizer changes the text: {difference}"
    if not tokenizer.allow_lossy:
        raise UserError(f"{message}; tokenizer.allow_lossy=true allows it")
    rank_zero_only(print)(f"note: {message} (tokenizer.allow_lossy=true)", file=sys.stderr)


def first_difference(text: str, decoded: str) -> str | None:
    """A description of the first difference of two texts; None if they are equal."""
    if text == decoded:
        return None
    pairs = zip(text, decoded, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(text), len(decoded)))
    before, after = (repr(t[at : at + AROUND]) for t in (text, decoded))
    return f"from character {at} on {before} comes back as {after}"
