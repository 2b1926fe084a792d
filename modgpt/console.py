"""The standard output of the commands."""

from __future__ import annotations

import os

from rich.console import Console


class Output(Console):
    """A console that leaves a broken pipe to the command: rich would end the process with code 1."""

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that rich is handling


def redraws(console: Console) -> bool:
    """Whether a live display can be drawn over itself: in a terminal.

    With FORCE_COLOR, rich takes every stream for a terminal. A notebook or a file would get a copy of
    the display at each refresh.
    """
    forced = bool(os.environ.get("FORCE_COLOR"))
    return console.is_terminal and (not forced or console.file.isatty())
