"""The files of a text that a user names: one file, a folder, or a pattern."""

from __future__ import annotations

import glob
import os
import stat
from pathlib import Path

PACKED = (".gz", ".zst")
KINDS = (".txt", ".jsonl", ".parquet")  # what a folder is searched for, also packed


def find_files(path: str) -> list[Path]:
    """The files that a path names, in the order of their names.

    Args:
        path: a file; a folder, searched downwards for `KINDS`; or a pattern such as `texts/*.txt`.

    Raises:
        ValueError: there is no such file, the folder has no text, or a file is not a regular one.
    """
    named = Path(path).expanduser()
    if os.path.isdir(named):  # pathlib raises for a name that is too long
        found = sorted(file for file in named.rglob("*") if kind_of(file) in KINDS and file.is_file())
        if not found:
            raise ValueError(f"{path} has no text: no file in it ends in {', '.join(KINDS)}")
        return found
    if glob.has_magic(path) and not os.path.exists(named):
        matches = sorted(map(Path, glob.glob(str(named), recursive=True)))
        found = [file for file in matches if not file.is_dir()]
        if not found:
            raise ValueError(f"no file matches {path}")
    else:
        found = [named]
    for file in found:
        check_regular(file)
    return found


def kind_of(file: Path) -> str:
    """`.jsonl` of `web.jsonl.gz`: the last ending, that of a packing left out."""
    endings = [ending.lower() for ending in file.suffixes]
    while endings and endings[-1] in PACKED:
        endings.pop()
    return endings[-1] if endings else ""


def packing_of(file: Path) -> str:
    """`.gz` or `.zst`; empty for a file that is not packed."""
    return file.suffix.lower() if file.suffix.lower() in PACKED else ""


def check_regular(path: Path) -> None:
    """Refuse what is not a regular file before it is opened: reading a pipe might never end.

    Raises:
        ValueError: the file does not exist, or is of another kind.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ValueError(f"no such file: {path}") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path} is a folder, not a text file")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is {special(mode)}, not a regular file: save its text to a file")


def special(mode: int) -> str:
    """The name of a special file's kind: pipe, socket or device."""
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
