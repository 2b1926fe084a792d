"""Parts of a corpus made from texts."""

from __future__ import annotations

import tempfile
from pathlib import Path

from modgpt.data.corpus import Part, Text, part


def part_of(text: str) -> Part:
    """A whole text as a part."""
    folder = Path(tempfile.mkdtemp(prefix="modgpt-test-"))
    (folder / "text.txt").write_text(text, encoding="utf-8", newline="")
    found = Text((folder / "text.txt",))
    return part(found, found.scan(folder), 0, len(text))
