"""Write files whole: no reader and no crash ever meets half of one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modgpt.errors import UserError


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; at the end it is synced and takes the place of `path`.

    Beside, and not in a temporary folder: across file systems a rename is a copy, which a kill can cut
    short. When the block raises, `path` stays as it was and nothing is left behind.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)  # mkstemp's files are for the owner alone
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` to fill; at the end it becomes `path`, or, when the block raises, nothing.

    Raises:
        UserError: `path` exists, or its parent cannot be made.
    """
    if path.exists():
        raise UserError(f"{path} exists: choose another folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise UserError(f"cannot write to {path.parent}: {error.strerror}") from error
    try:
        yield beside
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o777 & ~umask)  # mkdtemp's folders are for the owner alone
        beside.rename(path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON.

    On a full disk the new text goes into the blocks that the old one has, if it fits: a record can
    still tell that the disk is full.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        with replaced(path) as beside:
            beside.write_text(text, encoding="utf-8")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not overwritten(path, text.encode()):
            error.filename = str(path)
            raise


def overwritten(path: Path, content: bytes) -> bool:
    """Write into an existing file; returns whether its blocks had room for the content."""
    with suppress(FileNotFoundError), path.open("rb+") as file:
        if len(content) <= os.fstat(file.fileno()).st_blocks * 512:
            file.write(content)
            file.truncate()
            os.fsync(file.fileno())
            return True
    return False
