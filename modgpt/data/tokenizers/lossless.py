"""Does a text come back from its tokens as it was?"""

from __future__ import annotations

import sys

from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor

from modgpt.data.tokenizers.base import Tokenizer
from modgpt.errors import UserError

AROUND = 12  # characters shown from the first difference on


def check_lossless(tokenizer: Tokenizer, text: str, tokens: Tensor) -> None:
    """Refuse a tokenizer that changes the text, or say that it does where `allow_lossy` is set.

    What a lossy tokenizer drops need not be predicted: its loss looks better than it is.

    Args:
        tokenizer: the tokenizer.
        text: the corpus.
        tokens: encode(text).

    Raises:
        UserError: decode(tokens) differs from the text; shows the first difference.
    """
    difference = first_difference(text, tokenizer.decode(tokens))
    if difference is None:
        return
    message = f"the tokenizer changes the text: {difference}"
    if not tokenizer.allow_lossy:
        raise UserError(f"{message}; tokenizer.allow_lossy=true takes it all the same")
    rank_zero_only(print)(f"note: {message} (tokenizer.allow_lossy=true)", file=sys.stderr)


def first_difference(text: str, decoded: str) -> str | None:
    """Where two texts differ first, in words; None where they are equal."""
    if text == decoded:
        return None
    pairs = zip(text, decoded, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(text), len(decoded)))
    before, after = (repr(t[at : at + AROUND]) for t in (text, decoded))
    return f"from character {at} on {before} comes back as {after}"
