"""Synthetic tasks: a table of them, and a section each, from the docstrings of their classes."""

from __future__ import annotations

import inspect
import re

from hydra.utils import get_class, instantiate

from modgpt.config.compose import compose
from modgpt.config.search import option_node, option_text, options
from modgpt.data.tasks.base import TaskDataModule
from modgpt.data.tokenizers.char import CharTokenizer
from regions.configs import about, knobs
from regions.markdown import table

SECTIONS = ("Args:", "Raises:", "Attributes:")


def tasks() -> str:
    """Return the table of all tasks: what they ask, the level of chance and its formula, the source."""
    rows = []
    for name in task_names():
        data = instantiate(compose([f"data={name}"]).data, tokenizer=CharTokenizer.from_text)
        formula = " ".join((inspect.getdoc(type(data).chance) or "").split()).rstrip(".")
        source = paragraph(name, "Source:").partition("; ")[0].split(", as in")[0]
        source = re.split(r"\. (?=[A-Z])|: (?=[a-z])", source)[0].rstrip(".")
        rows.append([f"[`{name}`](#{name})", about("data", name), f"{data.chance:.1%}", formula, source])
    return table(("`data=`", "what is asked", "chance", "as a formula", "source"), rows)


def task(name: str) -> str:
    """Return what the docstring of a task says, with its example, and the table of its knobs."""
    parts = []
    for text in paragraphs(name)[1:]:
        if text.startswith("    "):
            parts.append(f"```text\n{inspect.cleandoc(text)}\n```")
        else:
            parts.append(text)
    if re.search(r"^\w+: ", option_text("data", name).partition("_target_")[2].partition("\n")[2]):
        parts.append(knobs(f"data/{name}"))
    return "\n\n".join(parts)


def task_names() -> list[str]:
    """Return the options of `data` that are tasks."""
    return [n for n in options("data") if issubclass(class_of(n), TaskDataModule)]


def class_of(name: str) -> type:
    return get_class(str(option_node("data", name)["_target_"]))


def paragraphs(name: str) -> list[str]:
    """Return the paragraphs of a class's docstring before its arguments."""
    found = (inspect.getdoc(class_of(name)) or "").split("\n\n")
    end = next(i for i, text in enumerate(found) if text.startswith(SECTIONS))
    return found[:end]


def paragraph(name: str, start: str) -> str:
    """Return the paragraph that begins with a word, on one line and without the word."""
    text = next(text for text in paragraphs(name) if text.startswith(start))
    return " ".join(text.removeprefix(start).split())
