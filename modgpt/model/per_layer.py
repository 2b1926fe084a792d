"""Layers that differ: a pattern of options, for a part that is made once per layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Part = TypeVar("Part")


def per_layer(
    *,
    options: Mapping[str, Callable[..., Part]],
    pattern: Sequence[str],
    layer: int = 0,
    **arguments: Any,
) -> Part:
    """The part of one layer: options[pattern[layer mod len(pattern)]].

    A partial like that of any other option, so that nothing else knows of patterns. Models of long
    context alternate in this way (GPT-Neo; Gemma 2, 2024, section 2; Gemma 3, 2025, section 2).

    Args:
        options: partials that make the part, by name.
        pattern: names, one per layer, repeated as often as needed.
        layer: index of the layer.
        arguments: for the option. Among them are the knobs beside the pattern in a YAML; an option that
            has such a knob itself, and not null, keeps its own.

    Raises:
        ValueError: an empty pattern, a name in it that is no option, or an option that is not in it.
    """
    check_pattern(options, pattern)
    make = options[pattern[layer % len(pattern)]]
    own = {key for key, value in getattr(make, "keywords", {}).items() if value is not None}
    return make(layer=layer, **{key: value for key, value in arguments.items() if key not in own})


def check_pattern(options: Mapping[str, object], pattern: Sequence[str]) -> None:
    """Hold a pattern to the options that it names.

    Raises:
        ValueError: an empty pattern, a name in it that is no option, or an option that is not in it.
    """
    if not pattern:
        raise ValueError(f"pattern must name an option for each layer: {', '.join(options)}")
    unknown = [name for name in pattern if name not in options]
    if unknown:
        raise ValueError(f"pattern names {unknown[0]!r}; its options are {', '.join(options)}")
    unused = [name for name in options if name not in pattern]
    if unused:
        raise ValueError(f"options.{unused[0]} is never used: pattern is {list(pattern)}")
