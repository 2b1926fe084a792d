"""From a component to its definition: the slow function that reads like the formula.

Every option's file begins with its definition, and the option's class names it, `definition =
staticmethod(…)`. The class may compute the same in a cleverer way; `modgpt.testing` holds it to the
definition. A definition's keyword-only arguments are attributes of the module: its weights, its parts
and its knobs, under the same names.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

from torch import nn


def defined(module: nn.Module) -> Callable[..., Any]:
    """The definition of a module as a function of its inputs alone, on the module's own weights.

    Raises:
        TypeError: the module's class names no definition.
    """
    own = getattr(module, "defined", None)  # a family may wrap the definitions of its options
    return bound(definition_of(module), module) if own is None else own()


def definition_of(module: nn.Module) -> Callable[..., Any]:
    """The definition that a module's class names.

    Raises:
        TypeError: there is none.
    """
    definition = getattr(module, "definition", None)
    if definition is None:
        name = type(module).__name__
        raise TypeError(
            f"{name} has no definition: write the formula as a plain function and name it in the class: "
            "definition = staticmethod(your_function)"
        )
    return definition


def bound(definition: Callable[..., Any], module: nn.Module, **given: Any) -> Callable[..., Any]:
    """A definition with its keyword-only arguments filled in: those given, the others from the module.

    Parts of the module that have a definition are replaced by it.
    """
    parameters = signature(definition).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in given]
    return partial(definition, **given, **{name: as_defined(getattr(module, name)) for name in names})


def as_defined(value: Any) -> Any:
    """A part by its definition, a list of parts likewise; anything else as it is."""
    if isinstance(value, nn.ModuleList):
        return [as_defined(part) for part in value]
    has_one = hasattr(value, "definition") or hasattr(value, "defined")
    return defined(value) if isinstance(value, nn.Module) and has_one else value
