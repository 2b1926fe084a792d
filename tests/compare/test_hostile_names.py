"""Names, options, overrides and reasons from files: every output shows them, none obeys them."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from modgpt.compare.comparison import compare
from modgpt.compare.escaping import for_markdown, for_spreadsheet
from modgpt.compare.report.page import vega
from tests.checkout import ROOT
from tests.compare.synthetic import DEFAULT, write_run

HOSTILE = [
    "=HYPERLINK(\"http://evil.example\",\"x\")", "=cmd|' /C calc'!A0", "+1+cmd", "-2+3", "@SUM(A1)",
    "\t=1+1", "\r=1+1", "\n=1+1",
    "<script>window.broken = 1</script>", "</script><script>window.broken = 1</script>",
    "<img src=x onerror=\"window.broken = 1\">", "\" onmouseover=\"window.broken = 1", "' autofocus x='",
    "<!--", "]]>", "{{ 7 * 7 }}", "{% raw %}", "${env:HOME}", "&lt;b&gt;", "javascript:alert(1)",
    "a | b", "`code`", "![i](http://evil.example/i.png)", "[l](http://evil.example)", "# Heading",
    "a\n# Heading\n\n- list", "*bold* _it_ ~~s~~", "http://evil.example", "www.evil.example", "1. one",
    "\x1b[2J\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "a\rb", "a\bb", "\x00", "\u202egnp.exe",
    "line\u2028separator\u2029", "\ud800", "[red]markup[/red]", "[/]", "datum.x = 1", "\\", "'", "\"",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds for each hostile text, as option, as override, as reason, as key and as folder."""
    folder = tmp_path_factory.mktemp("sweep")
    for number, text in enumerate(HOSTILE):
        for seed in (1, 2):
            loss = 1.5 + number / 100 + seed / 1000
            write_run(folder / "option", DEFAULT | {"norm": text}, seed, loss, device=text)
            write_run(folder / "key", DEFAULT, seed, loss, overrides=[f"model.x{text}={text}"])
        write_run(folder / "reason", DEFAULT, 1, None, status="failed", reason=text, curves=True)
    broken = write_run(folder / "broken\n# <b>[x](y)\x1b[2J", DEFAULT, 1, 1.0)
    (broken / "result.json").write_text(json.dumps({"format": 2, "status": "=<script>\x1b[2J"}))
    return folder


@pytest.fixture(scope="module")
def out(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs for all of them together, with what the terminal shows in terminal.txt."""
    out = tmp_path_factory.mktemp("out")
    with (out / "terminal.txt").open("w", encoding="utf-8") as file:
        compare([folder], out, Console(file=file, width=500, force_terminal=False), figures="svg")
    return out


def test_no_cell_of_the_csv_is_a_formula(out: Path) -> None:
    with (out / "results.csv").open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    for cell in cells:
        assert cell[:1] not in ("=", "@", "\t", "\r", "\n", "|", "%") or cell[:1] in ("|", "%"), cell
        assert cell[:1] not in ("+", "-") or re.fullmatch(r"[+-][\d.e+-]+", cell), cell
    assert any(cell.startswith("'=HYPERLINK") for cell in cells), "and nothing is lost"
    assert "1.501" in cells, "numbers are numbers"


def test_the_markdown_has_no_markup_of_theirs(out: Path) -> None:
    text = (out / "results.md").read_text(encoding="utf-8")
    ours = {"# Comparison", "## Combinations", "## Differences from the baseline", "## Interactions",
            "## Jobs", "## Not finished", "## Not read"}  # fmt: skip
    assert {line for line in text.splitlines() if re.match(r"\s*(- )?#", line)} <= ours
    plain = re.sub(r"\\.", "", text)  # without what is escaped
    assert "<" not in plain and "`" not in plain and "](" not in plain
    assert "http:/" not in plain and "www." not in plain
    tables = [block for block in plain.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_no_output_has_control_characters(out: Path) -> None:
    for name in ("terminal.txt", "results.csv", "results.md", "report.html", "differences.svg"):
        text = (out / name).read_text(encoding="utf-8").replace(vega(), "")
        found = set(re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029]", text))
        assert not found - {"\r"}, (name, found)
    assert "\\x1b[2J" in (out / "terminal.txt").read_text(encoding="utf-8"), "they are made visible"


class Elements(HTMLParser):
    """Counts what a browser would take for scripts and handlers."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts, self.images, self.handlers = 0, 0, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.images += tag == "img"
        self.handlers += sum(name.startswith("on") or name == "autofocus" for name, _ in attrs)


def test_the_page_has_no_elements_of_theirs(out: Path) -> None:
    text = (out / "report.html").read_text(encoding="utf-8").replace(vega(), "")
    elements = Elements()
    elements.feed(text)
    assert (elements.scripts, elements.images, elements.handlers) == (3, 0, 0)
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found and not set("<>&\u2028\u2029") & set(found[1])
    names = json.dumps(json.loads(found[1]), ensure_ascii=False)
    assert "<script>window.broken" in names, "and nothing is lost"


def test_figures_hold_no_elements_of_theirs(out: Path) -> None:
    for path in out.glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert "<script" not in text and "<img" not in text and "<b>" not in text


@pytest.mark.parametrize("text", HOSTILE[::6])
def test_one_alone_has_all_outputs(text: str, tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, DEFAULT, seed, 1.5 + seed / 100)
        write_run(
            tmp_path, DEFAULT, seed, 1.6 + seed / 100, overrides=[f"model.name={text}"], match=text
        )
    with open(os.devnull, "w") as file:
        assert compare([tmp_path], tmp_path / "out", Console(file=file)).exists()


@pytest.mark.parametrize(
    ("value", "safe"),
    [("=1", "'=1"), ("+1+1", "'+1+1"), ("-a", "'-a"), ("@x", "'@x"), ("\tx", "'\tx"), ("\rx", "'\rx"),
     ("-1.5", "-1.5"), ("+3e-4", "+3e-4"), ("-", "'-"), ("a=1", "a=1"), ("", ""), (-1.5, -1.5),
     (None, None)],
)  # fmt: skip
def test_cells_of_a_spreadsheet(value: object, safe: object) -> None:
    assert for_spreadsheet(value) == safe


@pytest.mark.parametrize(
    ("text", "safe"),
    [("a|b", r"a\|b"), ("a`b`", r"a\`b\`"), ("<b>", "&lt;b>"), ("[a](b)", r"\[a\](b)"),
     ("![a](b)", r"\!\[a\](b)"), ("# a", r"\# a"), ("a # b", "a # b"), ("- a", r"\- a"),
     ("-1.5", "-1.5"), ("+0.1", "+0.1"), ("1. a", "&#49;. a"), ("1.25", "1.25"), ("a\n\nb", "a b"),
     ("\\", "\\\\"),
     ("local_window", "local_window"), ("_a_", r"\_a\_"), ("http://x", r"http\://x"),
     ("&lt;", "&amp;lt;"), ("---", r"\---"), ("> a", r"\> a")],
)  # fmt: skip
def test_text_in_markdown(text: str, safe: str) -> None:
    assert for_markdown(text) == safe


def test_error_messages_are_visible_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "compare.py", tmp_path / "\x1b[2J"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "\x1b" not in done.stderr and "\\x1b[2J" in done.stderr
