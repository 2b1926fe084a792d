"""A positional encoding for each layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from modgpt.model.init import Initializer
from modgpt.model.per_layer import check_pattern
from modgpt.model.pos.base import DefinedPosition, Position


class PositionPerLayer(Position):
    """The encoding of a layer is options[pattern[layer mod len(pattern)]].

    Some models leave positions out in every fourth layer, so that it finds tokens at any distance
    (SmolLM3, 2025; Llama 4, 2025; Yang et al. 2025, "Rope to Nope and Back Again"). Gemma 3 rotates
    more slowly in the layers that see everything (2025, section 2). Layers of one name share one
    encoding, its weights included.

    Args:
        options: partials that make the encodings, by name.
        pattern: names, one per layer, repeated as often as needed.
        sizes: for the options.

    Raises:
        ValueError: an empty pattern, a name in it that is no option, an option that is not in it, or an
            option that adds to the embeddings, which all layers share.
    """

    variants = ({"pattern": ["nth", "most"]}, {"pattern": ["most", "nth"]})

    def __init__(
        self, *, options: Mapping[str, Callable[..., Position]], pattern: Sequence[str], **sizes: Any
    ) -> None:
        super().__init__(**sizes)
        check_pattern(options, pattern)
        self.options = nn.ModuleDict({name: make(**sizes) for name, make in options.items()})
        self.pattern = list(pattern)
        every = [self.of_layer(layer) for layer in range(len(pattern))]
        for name, option in zip(pattern, every, strict=True):
            if option.embed_definition is not None:
                raise ValueError(
                    f"pos.options.{name} adds to the embeddings, which all layers share: a pattern "
                    "takes encodings of queries, keys or scores, such as rope, alibi and none"
                )
        self.relative = all(option.relative for option in every)
        self.extrapolates = all(option.extrapolates for option in every)

    def of_layer(self, layer: int) -> Position:
        option = self.options[self.pattern[layer % len(self.pattern)]]
        assert isinstance(option, Position)
        return option

    def reset_parameters(self, init: Initializer) -> None:
        for option in self.options.values():
            assert isinstance(option, Position)
            option.reset_parameters(init)

    def defined(self) -> DefinedPosition:
        layers = [self.of_layer(layer).defined() for layer in range(len(self.pattern))]
        return DefinedPosition(layers=layers)
