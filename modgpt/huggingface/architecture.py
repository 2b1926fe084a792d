"""What a table says of an architecture of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from modgpt.huggingface.weights import Table

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Converted:
    """A setting that the two sides write in different ways.

    Args:
        name: their key, which the export writes.
        ours: computes our value from their whole configuration.
        theirs: computes their value from ours and the number of layers.
    """

    name: str
    ours: Callable[[Config], Any]
    theirs: Callable[[Any, int], Any]


@dataclass(frozen=True)
class Architecture:
    """The names of one architecture on both sides.

    Args:
        model_type: the name that transformers gives it.
        preset: our option of `experiment` that composes its parts.
        config: maps our keys to theirs; a dot enters a nested configuration.
        weights: maps our modules or tensors to theirs; {i} stands for the layer.
        fixed: values that their configuration must have, for the parts to be those of the preset.
    """

    model_type: str
    preset: str
    config: Mapping[str, str | Converted]
    weights: Table
    fixed: Mapping[str, Any] = field(default_factory=dict)
