"""Text from run folders, made harmless for the place where it is shown.

Names of runs, options, overrides and reasons come from files that somebody else may have written.
`visible` is applied once, when a run is read. The other functions add what one kind of file needs. The
HTML page escapes by itself (Jinja's autoescape).
"""

from __future__ import annotations

import re
import unicodedata

# Characters that reverse the direction of the text after them: a name could pretend to be another.
DIRECTION = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
MARKDOWN = re.compile(r"([\\`*\[\]|!~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.)", re.IGNORECASE)
# What begins a heading, a quotation, a list or an underline when a line starts with it.
LINE_START = re.compile(r"^([#>]|[-+=](?=\s|[-=]*$)|\d+(?=[.)](?:\s|$)))")


def visible(text: object) -> str:
    """One line of printable characters; control characters are written as `\\x1b`.

    A terminal would obey them, and files could not hold half of a surrogate pair.
    """
    return "".join(map(printable, " ".join(str(text).split())))


def printable(character: str) -> str:
    if unicodedata.category(character) in ("Cc", "Cs") or character in DIRECTION:
        return character.encode("unicode_escape").decode("ascii")
    return character


def for_spreadsheet(value: object) -> object:
    """A cell that no spreadsheet takes for a formula; numbers stay numbers."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r", "\n"):
        return value if NUMBER.fullmatch(value) else f"'{value}"
    return value


def for_markdown(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no links, one line."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    plain = MARKDOWN.sub(r"\\\1", plain)
    return LINE_START.sub(lambda start: escaped_start(start[1]), plain)


def escaped_start(start: str) -> str:
    """`#` as `\\#`; the number of a list item as a reference, for digits cannot be escaped."""
    return f"&#{ord(start[0])};{start[1:]}" if start[0].isdigit() else f"\\{start}"
