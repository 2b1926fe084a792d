"""Checks a configuration against the signatures of what it builds.

Every node with a `_target_` is held to that constructor's own parameters: otherwise a key that the
constructor does not know fails late, and a text in place of a number fails somewhere deep inside.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

from hydra._internal.utils import _locate  # hydra.utils.get_object, without its lines in the log
from omegaconf import DictConfig, OmegaConf

from modgpt.config.keys import KEYS, PARTS
from modgpt.errors import UserError, did_you_mean

_PLAIN = (int, float, bool, str, type(None))


def check_arguments(config: DictConfig) -> None:
    """Hold every value of a composed configuration to the signature it is meant for.

    Raises:
        UserError: a key no constructor has, or a value of the wrong kind.
    """
    for key, about in KEYS.items():
        if about.type is not None:
            check_value(key, config[key], about.type)
    for group in (*PARTS, "data", "tokenizer", "optimizer", "schedule", "trainer"):
        if group not in config:
            continue  # a configuration without a training; `make_job` asks for every group
        if not (isinstance(config[group], DictConfig) and "_target_" in config[group]):
            raise UserError(f"{group} must have a _target_, got {config[group]}")
    for group in ("callbacks", "logger"):
        for name, node in config[group].items():
            if node is not None and not (isinstance(node, DictConfig) and "_target_" in node):
                raise UserError(f"{group}.{name} must be null or have a _target_, got {node}")
    for path, node in targets(config):
        known, open_ended = parameters(target_at(path, node["_target_"]))
        for key in node:
            name = f"{path}.{key}"
            if str(key).startswith("_") or OmegaConf.is_missing(node, key):
                continue
            if key not in known and not open_ended:
                names = [k for k in known if k in node] or list(known)
                raise UserError(
                    f"unknown key {name!r}{did_you_mean(str(key), known)} "
                    f"({path} has: {', '.join(names)})"
                )
            check_value(name, node[key], known.get(str(key), Any))


def target_at(path: str, name: Any) -> Any:
    """The class or function that a `_target_` names.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        return _locate(name)
    except Exception as error:  # whatever the import of a module raises
        cause = error.__cause__ or error
        raise UserError(
            f"{path}._target_={name}: it cannot be imported ({type(cause).__name__}: {cause}); install "
            "its package, or set PYTHONPATH to the folder it is in"
        ) from error


def targets(config: DictConfig, path: str = "") -> Iterator[tuple[str, DictConfig]]:
    """All nodes with a `_target_`, with their paths."""
    if "_target_" in config:
        yield path, config
    for key in config:
        value = None if OmegaConf.is_missing(config, key) else config[key]
        if isinstance(value, DictConfig):
            yield from targets(value, f"{path}.{key}" if path else str(key))


def parameters(target: Any) -> tuple[dict[str, Any], bool]:
    """Parameter names and annotations of a callable, and whether it takes any other name.

    A constructor that hands `**kwargs` to its base class has the base's parameters too.
    """
    known: dict[str, Any] = {}
    if not inspect.isclass(target):
        open_ended = add_parameters(target, known)
        return known, open_ended
    for cls in target.__mro__:
        if "__init__" in vars(cls) and not add_parameters(cls.__init__, known):
            return known, False
    return known, True


def add_parameters(function: Any, known: dict[str, Any]) -> bool:
    """Add a function's parameters to `known`; True when it also takes any other."""
    try:
        hints = typing.get_type_hints(inspect.unwrap(function))
    except (NameError, TypeError):  # annotations that exist for a type checker only
        hints = {}
    open_ended = False
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            open_ended = True
        elif name != "self":
            known.setdefault(name, hints.get(name, Any))
    return open_ended


def check_value(name: str, value: Any, annotation: Any) -> None:
    """Raise a `UserError` when a plain value does not fit a plain annotation."""
    kinds = [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = list(get_args(annotation))
    literals = [x for kind in kinds if get_origin(kind) is Literal for x in get_args(kind)]
    kinds = [kind for kind in kinds if get_origin(kind) is not Literal]
    if any(kind not in _PLAIN for kind in kinds) or value in literals:
        return  # something richer than numbers and words: the constructor checks it itself
    if type(value) in kinds or (type(value) is int and float in kinds):
        return
    wanted = [{int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(k)
              for k in kinds]  # fmt: skip
    words = [w for w in wanted if w] + [str(x) for x in literals]
    words += ["null"] if type(None) in kinds else []
    raise UserError(f"{name} must be {' or '.join(words)}, got {value!r}")
