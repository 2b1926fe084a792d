"""Links from the page to the folders of the runs."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

SAMPLE = "sample.txt"  # as modgpt.training.callbacks.sample writes it


def link(path: Path, page: Path) -> str:
    """The address of a path, relative to the page, so that both can move together.

    It never begins with a name from a run: `javascript:…` is a possible name of a folder.
    """
    try:
        found = Path(os.path.relpath(path.resolve(), page.parent.resolve()))
    except ValueError:  # another drive of Windows
        return path.resolve().as_uri()
    address = quote(found.as_posix().encode("utf-8", "surrogateescape"))
    return address if address.startswith("../") else f"./{address}"


def job_links(path: str, page: Path) -> dict[str, str]:
    """The addresses of a run's folder and, where it has one, of its sample."""
    folder = Path(path)
    found = {"folder": f"{link(folder, page).rstrip('/')}/"}
    if (folder / SAMPLE).is_file():
        found["sample"] = link(folder / SAMPLE, page)
    return found
