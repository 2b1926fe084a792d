"""The standard output of the commands."""

from __future__ import annotations

from rich.console import Console


class Output(Console):
    """A console that leaves a broken pipe to the command: rich would end the process with code 1."""

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that rich is handling
