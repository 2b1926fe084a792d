"""The Markdown files of the repository, their links and their command lines."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Return the targets of the links and images of a page, but for those on the web."""
    found = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))
    return [target for target in found if not target.startswith(("http://", "https://"))]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        repeated = sum(anchor == other or other.startswith(f"{anchor}~") for other in found)
        found.add(f"{anchor}-{repeated}" if repeated else anchor)
    return found


def files(page: Path) -> dict[str, str]:
    """Return the files that a page shows: a path between backticks on a line, then a code block."""
    text = page.read_text(encoding="utf-8")
    return dict(re.findall(r"^`([\w./-]+)`:\n\n```\w+\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))


def command_lines(page: Path) -> list[list[str]]:
    """Return the words of every command in the page's ```bash blocks and between backticks.

    `&&` separates two commands, and a `\\` continues a line.
    """
    commands = [
        shlex.split(line)
        for line in re.findall(r"`((?:modgpt|python [\w./-]*(?:\.py|-m pytest)) [^`…\n]+)`", prose(page))
    ]
    for language, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language != "bash":
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                commands.append(words[:end])
                words = words[end + 1 :]
    return [command for command in commands if command]
