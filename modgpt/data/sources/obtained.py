"""Files that are obtained once, with pinned content, and kept in a folder."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from modgpt.data.sources.files import check_regular
from modgpt.files import replaced

CHUNK = 2**20
logger = logging.getLogger(__name__)


def obtain(target: Path, known_hash: str | None, make: Callable[[Path], None]) -> Path:
    """The path of a file, which is made if it is missing and verified if its hash is known.

    Args:
        target: the file.
        known_hash: of its content, such as `sha256:86c4…`; None where none is published.
        make: writes the content to a path beside the target.

    Raises:
        ValueError: the file there has another content (it is not changed); the content cannot be
            obtained, has another hash, or cannot be written (no partial file remains).
    """
    if os.path.lexists(target):
        check_regular(target)
        check_hash(target, known_hash, f"{target} is not the pinned file", "move or delete it")
        return target
    existing = next(p for p in target.absolute().parents if p.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):  # before anything is downloaded
        raise ValueError(
            f"cannot write {target}: {existing} is not a folder to write to; data.data_dir=FOLDER takes "
            "another one"
        )
    logger.info("obtaining %s", target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replaced(target) as beside:
            try:
                make(beside)
            except Exception as error:  # of pip, pooch, datasets or the network
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise ValueError(f"cannot obtain {target.name}: {reason[:300]}") from error
            check_hash(beside, known_hash, f"{target.name} was obtained with another content", "")
    except OSError as error:
        raise ValueError(
            f"cannot write {target}: {error.strerror}; data.data_dir=FOLDER takes another folder"
        ) from error
    return target


def file_name(*words: object) -> str:
    """A file name of some words: letters, digits, `.`, `-` and `_`; it never begins with a dot.

    The words can come from the configuration of a run from elsewhere. They must not choose the folder of
    a file that is written, nor the name of a file that a program reads.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", ".".join(map(str, words))).lstrip(".-") or "unnamed"


def check_hash(file: Path, known_hash: str | None, problem: str, advice: str) -> None:
    """Compare the content of a file with its hash.

    Raises:
        ValueError: it has another.
    """
    if known_hash is None:
        return
    algorithm, _, wanted = known_hash.partition(":")
    digest = hashlib.new(algorithm)
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != wanted:
        further = f"; {advice}, and it will be obtained again" if advice else ""
        raise ValueError(f"{problem}: {algorithm} {digest.hexdigest()}, not {wanted}{further}")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines of UTF-8, the same bytes on every system."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
