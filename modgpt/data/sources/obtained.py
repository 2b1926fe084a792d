"""Files that are obtained once, with pinned content, and kept in a folder."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from modgpt.data.sources.files import check_regular
from modgpt.files import replaced


def obtain(
    target: Path, known_hash: str | None, make: Callable[[Path], None], called: str | None = None
) -> Path:
    """The path of a file, which is made if it is missing and verified if its hash is known.

    Several processes may obtain the same file at the same time: each writes a file of its own and moves
    it into place.

    Args:
        target: the file.
        known_hash: of its content, such as `sha256:86c4…`; None where none is published.
        make: writes the content to a path beside the target.
        called: how messages call the content; None for the name of the file.

    Raises:
        ValueError: the file there has another content (it is not changed); the content cannot be
            obtained, has another hash, or cannot be written (no partial file remains).
    """
    called = called or target.name
    if os.path.lexists(target):
        check_regular(target)
        if problem := hash_problem(target, known_hash):
            raise ValueError(
                f"{target} is not {called}: {problem}; move or delete it, and it will be obtained again"
            )
        return target
    parents = target.absolute().parents
    new = [parent for parent in parents if not parent.exists()]
    existing = next(parent for parent in parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):  # before anything is downloaded
        raise ValueError(
            f"cannot write {target}: {existing} is not a folder to write to; data.data_dir=FOLDER takes "
            "another one"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replaced(target) as beside:
            try:
                make(beside)
            except ValueError as error:
                raise ValueError(f"cannot obtain {called}: {error}") from error
            except Exception as error:  # of pip, pooch, datasets or the network
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                raise ValueError(f"cannot obtain {called}: {reason[:300]}") from error
            if problem := hash_problem(beside, known_hash):
                raise ValueError(f"{called} was obtained with another content: {problem}")
    except OSError as error:
        raise ValueError(
            f"cannot write {target}: {error.strerror}; data.data_dir=FOLDER takes another folder"
        ) from error
    finally:
        if not target.exists():
            for parent in new:  # the innermost first; one that is not empty stays
                with suppress(OSError):
                    parent.rmdir()
    return target


def file_name(*words: object) -> str:
    """A file name of some words: letters, digits, `.`, `-` and `_`; it never begins with a dot.

    The words can come from the configuration of a run from elsewhere. They must not choose the folder of
    a file that is written, nor the name of a file that a program reads.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", ".".join(map(str, words))).lstrip(".-") or "unnamed"


def hash_problem(file: Path, known_hash: str | None) -> str | None:
    """What is wrong with the hash of a file; None where it is right, or no hash is known.

    Raises:
        ValueError: the hash is of an unknown kind, or the file cannot be read.
    """
    if known_hash is None:
        return None
    algorithm, _, wanted = known_hash.partition(":")
    if algorithm not in ("sha256", "sha1"):
        raise ValueError(f"{known_hash!r} is not a hash such as sha256:86c4…")
    try:
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, algorithm).hexdigest()
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
    return None if found == wanted else f"its {algorithm} is {found}, not {wanted}"


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write lines of UTF-8, the same bytes on every system."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
