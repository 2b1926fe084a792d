"""Compositions discovered from the configs, in small models.

The normal suite checks `covering`: every option beside the defaults, and every pair of options. The slow
tests check `combinations` of attention and pos with parts drawn by the seed of the day.
"""

from __future__ import annotations

import itertools
import os
import random
import time
from functools import cache
from typing import Any

from allpairspy import AllPairs

from modgpt.model.gpt import GPT
from modgpt.testing import build

GROUPS = ("attention", "ffn", "norm", "pos")
DEFAULT = {"attention": "flash", "ffn": "swiglu", "norm": "rmsnorm", "pos": "rope"}
SEED = int(os.environ.get("MODGPT_TEST_SEED", time.time() // 86400))  # of the day


def combinations() -> list[dict[str, str]]:
    """Every combination of the options there are, but those that are refused."""
    every = itertools.product(*(build.options_of(group) for group in GROUPS))
    named = [dict(zip(GROUPS, choice, strict=True)) for choice in every]
    return [choices for choices in named if fits(choices)]


@cache
def covering() -> list[dict[str, str]]:
    """Every option beside the defaults of the other groups, and every pair of options at least once."""
    options = {group: list(build.options_of(group)) for group in GROUPS}
    rows = [dict(zip(GROUPS, choice, strict=True)) for choice in AllPairs(list(options.values()))]
    # A row that is refused becomes two, so that its other pairs are covered all the same.
    pairs = [fitting for row in rows for fitting in (row,) * fits(row) or without_refused_pair(row)]
    return list({name_of(choices): choices for choices in alone() + pairs}.values())


@cache
def alone() -> list[dict[str, str]]:
    """Every option beside the defaults of the other groups: for what takes long."""
    every = [DEFAULT | {group: option} for group in GROUPS for option in build.options_of(group)]
    return list({name_of(choices): choices for choices in every}.values())


@cache
def drawn() -> list[dict[str, str]]:
    """Every attention with every positional encoding, the other parts drawn by the seed of the day."""
    random_ = random.Random(SEED)
    others = {group: list(build.options_of(group)) for group in ("ffn", "norm")}
    return [
        {"attention": a, **{group: random_.choice(found) for group, found in others.items()}, "pos": pos}
        for a, pos in fitting_pairs()
    ]


def fitting_pairs() -> list[tuple[str, str]]:
    """Every attention with every positional encoding that it can use."""
    every = itertools.product(build.options_of("attention"), build.options_of("pos"))
    return [pair for pair in every if build.fit(*pair)]


def fits(choices: dict[str, str]) -> bool:
    """Whether the attention can use the positions."""
    return build.fit(choices["attention"], choices["pos"])


def without_refused_pair(choices: dict[str, str]) -> list[dict[str, str]]:
    """The same choices, once with the default positions and once with the default attention."""
    return [choices | {group: DEFAULT[group]} for group in ("pos", "attention")]


def name_of(choices: dict[str, str]) -> str:
    return "-".join(choices.values())


def small_model(choices: dict[str, str], **sizes: Any) -> GPT:
    """A small model of the chosen options, whose windows and chunks a few tokens pass."""
    parts: dict[str, Any] = {
        group: build.small(build.options_of(group)[option]) for group, option in choices.items()
    }
    return build.small_model(**parts, **sizes)
