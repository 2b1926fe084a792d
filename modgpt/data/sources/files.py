"""Reading of text files that a user names; each failure is one line."""

from __future__ import annotations

import stat
from pathlib import Path


def read_file(path: Path) -> bytes:
    """The bytes of a regular file.

    A pipe or a device is refused before it is opened: reading it might never end.

    Raises:
        ValueError: the file does not exist, is not a regular file, or cannot be read.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ValueError(f"{path} is a folder, not a text file")
        if not stat.S_ISREG(mode):
            raise ValueError(f"{path} is {kind(mode)}, not a regular file: save its text to a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"no such file: {path}") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with its line ends unchanged.

    Raises:
        ValueError: as `read_file`; or the file is empty, or not UTF-8 (gives the offset of the byte).
    """
    raw = read_file(path)
    if not raw:
        raise ValueError(f"{path} is empty")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {error.start}"
        ) from error


def kind(mode: int) -> str:
    """The name of a special file's kind: pipe, socket or device."""
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
