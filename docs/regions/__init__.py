"""The kinds of generated parts in the documentation: a function each, from words to Markdown."""

from __future__ import annotations

from collections.abc import Callable

from regions.commands import commands, flags
from regions.configs import combinations, count, jobs, knobs, options, parts
from regions.packages import packages
from regions.source import code, fields

KINDS: dict[str, Callable[..., str]] = {
    f.__name__: f
    for f in (code, combinations, commands, count, fields, flags, jobs, knobs, options, packages, parts)
}
