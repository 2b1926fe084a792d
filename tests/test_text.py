"""Text from elsewhere, as a terminal shows it."""

from __future__ import annotations

import pytest

from modgpt.text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [("\x1b[2J", "\\x1b[2J"), ("a\nb\tc", "a b c"), ("\x00", "\\x00"), ("\u202ea", "\\u202ea"),
     ("\ud800", "\\ud800"), ("é ü 漢字", "é ü 漢字"), ("a\u2028b", "a b"), (3, "3")],
)  # fmt: skip
def test_text_that_a_terminal_shows(text: object, shown: str) -> None:
    assert visible(text) == shown
