"""Text from run folders, escaped for spreadsheets and Markdown.

Names of runs, options, overrides and reasons come from files that somebody else may have written.
`modgpt.text.visible` is applied once, when a run is read. The functions here add what one kind of file
needs. The HTML page is escaped by Jinja's autoescape.
"""

from __future__ import annotations

import re

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
MARKDOWN = re.compile(r"([\\`*\[\]|!~$]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.)", re.IGNORECASE)
# What begins a heading, a quotation, a list or an underline when a line starts with it.
LINE_START = re.compile(r"^([#>]|[-+=](?=\s|[-=]*$)|\d+(?=[.)](?:\s|$)))")


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
