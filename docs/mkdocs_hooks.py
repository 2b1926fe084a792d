"""Hooks of the documentation site: the pages are those of the repository, none is written twice.

GitHub shows docs/*.md as they are. For the site this file adds three things: the repository's README
as the first page, a page of the Python API for each package, and formulas as drawings, which need
neither a script nor a font.
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import ziamath
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PUBLIC = ["config.compose.compose", "config.build.build_model", "runs.folder.load_run",
          "runs.folder.Run", "inference.generation.generate"]  # fmt: skip


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add what has no file in docs/ to the navigation, and the fence of formulas."""
    pages = [{"Results": "results/README.md"}]
    pages += [{str(page.parent.relative_to(page.parents[1])).replace("_", " ").capitalize():
               str(page.relative_to(ROOT / "docs"))}
              for page in sorted((ROOT / "docs/results").glob("*/results.md"))]  # fmt: skip
    pages.append({"Measured performance": "results/performance.md"})
    config.nav[0]["Start"].insert(0, {"Overview": "start.md"})
    config.nav.append({"Results": pages})
    reference = [{"Python API": "api/index.md"}, *({f"modgpt.{p}": f"api/{p}.md"} for p in packages())]
    config.nav.append({"Reference": reference})
    config.mdx_configs["pymdownx.superfences"] = {
        "custom_fences": [{"name": "math", "class": "formula", "format": formula}]
    }
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README and the pages of the API."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "start.md", content=readme.replace("](docs/", "](")))
    public = "# Python API\n\nThe functions of `import modgpt`, for notebooks and scripts.\n\n"
    for name in PUBLIC:
        public += f"::: modgpt.{name}\n    options:\n      heading: modgpt.{name.rpartition('.')[2]}\n"
        public += "      skip_local_inventory: true\n\n"  # links lead to the page of its package
    files.append(File.generated(config, "api/index.md", content=public))
    for package in packages():
        modules = sorted((ROOT / "modgpt" / package).rglob("*.py"))
        names = [".".join(module.relative_to(ROOT).with_suffix("").parts) for module in modules]
        heading = "    options:\n      heading_level: 1\n"
        content = f"::: modgpt.{package}\n{heading}\n"
        content += "".join(f"::: {name}\n\n" for name in names if not name.endswith("__init__"))
        files.append(File.generated(config, f"api/{package}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to the repository's README at its page on the site."""
    inside = "/" in page.file.src_uri  # there ../README.md is docs/README.md
    return markdown if inside else markdown.replace("](../README.md", "](start.md")


def packages() -> list[str]:
    """Return the names of the packages of modgpt with classes and functions to call."""
    found = (folder.parent.name for folder in (ROOT / "modgpt").glob("*/__init__.py"))
    return sorted(name for name in found if name not in ("commands", "configs"))


def formula(source: str, *args: object, **kwargs: object) -> str:
    """Return a formula in LaTeX as a drawing, with the LaTeX as its text."""
    drawing = ziamath.Math.fromlatex(plain(source), size=18, color="currentColor").svg()
    image = f'<svg role="img" aria-label="{escape(source.strip())}"'
    return f'<div class="formula">{drawing.replace("<svg", image, 1)}</div>'


def plain(source: str) -> str:
    """Return the formula without what ziamath draws as text."""
    return re.sub(r"\\big(?![a-z])|(?<=\\\\)\[\d+ex\]", "", source).replace(r"\_", "_")
