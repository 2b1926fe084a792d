"""Compositions discovered from the configs, small enough to check all of them."""

from __future__ import annotations

import itertools
from typing import Any

from modgpt.model.gpt import GPT
from modgpt.testing import build

# The groups whose every combination is checked.
GROUPS = ("attention", "ffn", "norm", "pos")


def combinations() -> list[dict[str, str]]:
    """Every combination of the options there are."""
    every = itertools.product(*(build.options_of(group) for group in GROUPS))
    return [dict(zip(GROUPS, choice, strict=True)) for choice in every]


def name_of(choices: dict[str, str]) -> str:
    return "-".join(choices.values())


def small_model(choices: dict[str, str], **sizes: Any) -> GPT:
    """A small model of the chosen options, whose windows and chunks a few tokens pass."""
    parts: dict[str, Any] = {
        group: build.small(build.options_of(group)[option]) for group, option in choices.items()
    }
    return build.small_model(**parts, **sizes)
