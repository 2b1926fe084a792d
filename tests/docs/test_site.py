"""The documentation site: it builds without a warning, needs no network, and a broken link stops it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import BLOCK, ROOT

pytestmark = pytest.mark.slow


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=source, capture_output=True, text=True, timeout=250,
        env=os.environ | {"PYTHONPATH": str(source), "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip


def test_the_site_builds_and_needs_no_network(tmp_path: Path) -> None:
    built = build(ROOT, tmp_path)
    assert built.returncode == 0, built.stderr
    pages = {str(page.relative_to(tmp_path)): page.read_text() for page in tmp_path.rglob("*.html")}
    for page, text in pages.items():
        assert not re.findall(r'<(?:script|img|iframe)[^>]* src="(?:https?:)?//[^"]*"', text), page
        assert not re.findall(r'<link[^>]*stylesheet[^>]* href="(?:https?:)?//[^"]*"', text), page
    for source in sorted((ROOT / "docs").glob("*.md")):
        formulas = [name for name, _ in BLOCK.findall(source.read_text()) if name == "math"]
        page = "index" if source.stem == "README" else source.stem
        assert pages[f"{page}.html"].count('<svg role="img" aria-label') == len(formulas)
    assert "The configuration that `modgpt train`" in re.sub("</?code>", "`", pages["api/index.html"])
    assert "ROMEO:" in pages["start.html"] and "image/png" in pages["notebooks/first_steps.html"]


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("docs", "modgpt"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "mkdocs.yml"):
        shutil.copy(ROOT / name, source / name)
    with (source / "docs" / "glossary.md").open("a") as page:
        page.write("\n[broken](attention.md#no-such-heading)\n")
    built = build(source, tmp_path / "site")
    assert built.returncode != 0 and "no-such-heading" in built.stderr
