"""Text from elsewhere, such as names in files, made safe to print."""

from __future__ import annotations

import unicodedata

CONTROL = ("Cc", "Cs")  # categories: control characters, halves of surrogate pairs
# Characters that reverse the direction of the text after them: a name could pretend to be another.
DIRECTION = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def visible(text: object) -> str:
    """One line of text that a terminal shows and does not obey; control characters become `\\x1b`."""
    return escaped(" ".join(str(text).split()))


def escaped(text: str, keep: str = "") -> str:
    """The text with escapes like `\\x1b` for control characters and changes of direction.

    Args:
        text: any text.
        keep: control characters to leave as they are.
    """
    return "".join(c if c in keep or not acts(c) else escape(c) for c in text)


def acts(character: str) -> bool:
    """Whether a character acts on a terminal instead of being shown."""
    return unicodedata.category(character) in CONTROL or character in DIRECTION


def escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
