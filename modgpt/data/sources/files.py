"""Files of text that a user names: read whole, or refused in one line."""

from __future__ import annotations

import stat
from pathlib import Path


def read_file(path: Path) -> bytes:
    """The bytes of a regular file.

    A pipe or a device is refused before it is opened: reading it might never end.

    Raises:
        ValueError: no such file, not a regular file, or not readable.
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
    """The text of a UTF-8 file, line ends as they are.

    Raises:
        ValueError: as `read_file`; or it is empty, or not UTF-8 (with the byte's offset).
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
    """What a file is that is neither a regular file nor a folder."""
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
