"""A progress bar for the reading and encoding of large texts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from modgpt.console import redraws
from modgpt.data.sources.pieces import Piece

LARGE = 2**25  # bytes; smaller texts take seconds


def watched(pieces: Iterable[Piece], title: str, size: int) -> Iterator[Piece]:
    """The pieces of a text, with a progress bar on a terminal.

    Args:
        pieces: of the text.
        title: in front of the bar.
        size: about how many bytes the text has.
    """
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    shown = size >= LARGE and redraws(console)
    with Progress(*columns, console=console, disable=not shown, transient=True) as bar:
        task = bar.add_task(title, total=size)
        for piece in pieces:
            yield piece
            bar.advance(task, len(piece.text))
