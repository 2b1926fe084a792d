"""What a table says of an architecture of transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from modgpt.huggingface.weights import Table

Config = Mapping[str, Any]
Settings = Mapping[str, Any]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Converted:
    """A setting that the two sides write in different ways.

    Args:
        name: their key, which the export writes.
        ours: computes our value from their whole configuration.
        theirs: computes their value from all settings of ours, by their dotted keys, where a null is
            replaced by the value that it stands for (`attention.head_dim`).
    """

    name: str
    ours: Callable[[Config], Any]
    theirs: Callable[[Settings], Any]


@dataclass(frozen=True)
class Architecture:
    """The names of one architecture on both sides.

    Args:
        model_type: the name that transformers gives it.
        preset: our option of `experiment` that composes its parts.
        config: maps our keys to theirs; a dot enters a nested configuration.
        weights: maps our modules or tensors to theirs; {i} stands for the layer.
        fixed: values that their configuration must have, for the parts to be those of the preset. A
            function computes the value from the rest of their configuration.
        derived: settings of ours that follow from their configuration and that it has no key for.
    """

    model_type: str
    preset: str
    config: Mapping[str, str | Converted]
    weights: Table
    fixed: Mapping[str, Any] = field(default_factory=dict)
    derived: Mapping[str, Callable[[Config], Any]] = field(default_factory=dict)

    def fixed_for(self, config: Config) -> dict[str, Any]:
        """The fixed values, those that depend on a configuration computed for this one."""
        return {k: v(config) if callable(v) else v for k, v in self.fixed.items()}


def layers_of(part: str, ours: Settings) -> list[str]:
    """The option that each layer has, of a part with a pattern: attention=hybrid, ffn=hybrid."""
    pattern = ours[f"{part}.pattern"]
    return [pattern[layer % len(pattern)] for layer in range(ours["model.n_layers"])]


def pattern_naming(options: Iterable[str], layers: list[str]) -> list[str]:
    """A pattern with the option of each layer, and behind the last layer those that none has."""
    return layers + [name for name in options if name not in layers]


def without(table: Mapping[str, Value], *names: str) -> dict[str, Value]:
    """The lines of a table but those with these names."""
    return {name: value for name, value in table.items() if name not in names}
