"""The standard output of the commands."""

from __future__ import annotations

import io

import pytest

from modgpt.console import Output, redraws


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "forced", "expected"),
    [(Terminal, "", True), (Terminal, "1", True), (io.StringIO, "", False), (io.StringIO, "1", False)],
)
def test_only_a_terminal_is_drawn_on_again(
    stream: type[io.StringIO], forced: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With FORCE_COLOR, as in a notebook, rich takes a file for a terminal."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    if forced:
        monkeypatch.setenv("FORCE_COLOR", forced)
    assert redraws(Output(file=stream())) == expected
