"""Small components and models to test with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from modgpt.model.attention.flash import FlashAttention
from modgpt.model.block import Block
from modgpt.model.ffn.swiglu import SwiGLUFeedForward
from modgpt.model.gpt import GPT
from modgpt.model.norm.rmsnorm import RMSNorm
from modgpt.model.pos.rope import RotaryPosition

# What makes a component: its class, or a partial of it as a YAML describes.
Make = Callable[..., Any]


def options_of(group: str) -> dict[str, Make]:
    """The options of a config group, by name, each as its YAML makes it."""
    from modgpt.config.search import config_dirs

    return _options_of(group, config_dirs())


@cache
def _options_of(group: str, _: tuple[str, ...]) -> dict[str, Make]:
    from hydra.utils import instantiate

    from modgpt.config.compose import compose
    from modgpt.config.search import options

    return {option: instantiate(compose([f"{group}={option}"])[group]) for option in options(group)}


@cache
def fit(attention: str, pos: str) -> bool:
    """Whether two options of the configs can be used together."""
    return can_use(small(options_of("attention")[attention]), small(options_of("pos")[pos]))


def can_use(attention: Make, pos: Make) -> bool:
    """Whether an attention can use a positional encoding."""
    sizes: dict[str, Any] = {"d_model": 48, "n_heads": 3}
    with torch.device("meta"):
        encoding = pos(**sizes, block_size=32, init_std=0.02)
        return attention(**sizes).unsupported(encoding) is None


def positions_for(attention: Make) -> dict[str, Make]:
    """The positional encodings of the configs that an attention can use, by name."""
    return {name: pos for name, pos in options_of("pos").items() if can_use(attention, small(pos))}


def attentions_for(pos: Make) -> dict[str, Make]:
    """The attentions of the configs that can use a positional encoding, by name."""
    return {name: make for name, make in options_of("attention").items() if can_use(small(make), pos)}


def class_of(make: Make) -> Any:
    """The class, or the function, behind a partial."""
    return make.func if isinstance(make, partial) else make


def is_a(make: Make, kind: type) -> bool:
    """Whether a component is of a kind; a pattern of options is of none."""
    part = class_of(make)
    return isinstance(part, type) and issubclass(part, kind)


def with_knobs(make: Make, **knobs: Any) -> Make:
    """The same component with some knobs changed; those of a pattern of options go to all of them."""
    keywords = make.keywords if isinstance(make, partial) else {}
    if "options" in keywords:
        options = {name: with_knobs(option, **knobs) for name, option in keywords["options"].items()}
        return partial(make, options=options)
    return partial(make, **knobs)


def variants(make: Make) -> list[Make]:
    """The component once for each of the values that its class wants to be tested with.

    Parts inside it are made small.
    """
    keywords = make.keywords if isinstance(make, partial) else {}
    inner: dict[str, Any] = {}
    for name, value in keywords.items():
        if isinstance(value, partial):
            inner[name] = small(value)
        elif isinstance(value, dict):
            inner[name] = {key: small(part) for key, part in value.items()}
    return [partial(make, **inner | knobs) for knobs in getattr(class_of(make), "variants", ({},))]


def small(make: Make) -> Make:
    """The component with its first variant's knobs: a few tokens pass every window and chunk."""
    return variants(make)[0]


def component(make: Make, *args: Any, **sizes: Any) -> Any:
    """A component with large random weights.

    With weights as small as at the start of a training, scores would hardly differ from zero, and
    an error in them would hardly be seen.
    """
    made = make(*args, **sizes)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4, generator=generator)
    return made


def small_model(
    *,
    attention: Make = FlashAttention,
    ffn: Make = SwiGLUFeedForward,
    norm: Make = RMSNorm,
    pos: Make = RotaryPosition,
    block: Make = Block,
    **sizes: Any,
) -> GPT:
    """A model of two layers with three heads, which is no power of two, and large weights."""
    knobs: dict[str, Any] = {"vocab_size": 11, "d_model": 48, "n_layers": 2, "n_heads": 3}
    knobs |= {"block_size": 32, "dropout": 0.0, "init_std": 0.15} | sizes
    return GPT(attention=attention, ffn=ffn, norm=norm, pos=pos, block=block, **knobs)
