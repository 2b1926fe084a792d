"""Rewrite the generated parts of the documentation from the code, or check that they are up to date.

python docs/generate.py           rewrite them
python docs/generate.py --check   print what differs and exit with code 1, without writing

A generated part stands between two comments in a Markdown file; `KIND` is one of `regions.KINDS`:

    <!-- generated: KIND ARGUMENTS -->
    …
    <!-- end -->

`<!-- code: FILE:NAME -->` includes the source of a function, class or method. On one line,
`<!-- generated: combinations -->420<!-- end -->`, it is a number or a word of the text.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from regions import KINDS

ROOT = Path(__file__).resolve().parents[1]
START = r"<!-- (?:generated: (?=\w)|(?=code: ))"
REGION = re.compile(START + r"(?P<call>[^>]*?) -->(?P<body>.*?)<!-- end -->", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    """Rewrite or check every Markdown file; return 0, 1 for a difference, 2 for an error."""
    parser = argparse.ArgumentParser(description="Rewrite the generated parts of the documentation.")
    parser.add_argument("--check", action="store_true", help="compare only, and print what differs")
    arguments = parser.parse_args(argv)
    outdated = False
    for path in markdown_files():
        before = path.read_text(encoding="utf-8")
        try:
            after = rewritten(before)
        except (KeyError, ValueError, OSError) as error:
            print(f"error: {path.relative_to(ROOT)}: {error}", file=sys.stderr)
            return 2
        if after == before:
            continue
        outdated = True
        name = str(path.relative_to(ROOT))
        if arguments.check:
            lines = difflib.unified_diff(
                before.splitlines(), after.splitlines(), name, f"{name}, generated", lineterm=""
            )
            print("\n".join(lines))
        else:
            path.write_text(after, encoding="utf-8")
            print(name)
    if outdated and arguments.check:
        print("The generated parts are out of date: run python docs/generate.py")
    return int(outdated and arguments.check)


def markdown_files() -> list[Path]:
    """README.md and every page below docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def rewritten(text: str) -> str:
    """Return the text with every generated part made anew.

    Raises:
        ValueError: a part has an unknown kind, wrong arguments, or no end.
    """
    if len(re.findall(START, text)) != text.count("<!-- end -->"):
        raise ValueError("not every '<!-- generated: … -->' has its '<!-- end -->'")

    def replace(match: re.Match[str]) -> str:
        kind, *arguments = match["call"].replace("code: ", "code ").split()
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r} in {match[0][:60]!r}; there are {', '.join(KINDS)}")
        content = KINDS[kind](*arguments)
        around = "\n" if "\n" in match["body"] else ""
        marker = match[0].partition(" -->")[0]
        return f"{marker} -->{around}{content}{around}<!-- end -->"

    return REGION.sub(replace, text)


if __name__ == "__main__":
    sys.exit(main())
