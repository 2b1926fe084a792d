"""A configuration from a file is data: what it may hold, checked before anything is built from it.

Hydra builds what a `_target_` names, and calls whatever that is. In a file from elsewhere it may name
only what the packaged configs name, word for word, and what the user trusts by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from inspect import isclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf._utils import get_yaml_loader

from modgpt.config.keys import KEYS, PARTS
from modgpt.config.search import CONFIG_DIR, config_dirs, groups, option_node, options, variants
from modgpt.errors import UserError

LARGEST_FILE = 1_000_000  # bytes; a composed configuration has 5,000
LARGEST_TREE = 10_000  # values
DEEPEST_TREE = 30
PLAIN = (dict, list, str, int, float, bool, type(None))
PACKAGE_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


_trusted: list[str] = []


def trust_package(package: str) -> None:
    """Let files name the classes of a package, for this process: the user's `--trust mypackage`.

    Raises:
        UserError: the name is not one of a package.
    """
    if not PACKAGE_NAME.fullmatch(package):
        raise UserError(f"cannot trust {package!r}: name an importable package, such as mypackage")
    _trusted.append(package)


def read_config(path: Path, trust: Sequence[str] = (), to_build: bool = True) -> DictConfig:
    """The configuration in a YAML file from elsewhere, as plain data.

    Args:
        path: such as the `config.yaml` of a run.
        trust: packages whose classes may be built, such as `mypackage`.
        to_build: False for a configuration that is only compared: any `_target_` may stand in it.

    Raises:
        UserError: the file cannot be read, or holds what `check_foreign` refuses.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"cannot read {path}: it is not a regular file")
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        if len(raw) > LARGEST_FILE:
            raise UserError(f"refused {path}: it is larger than {LARGEST_FILE:,} bytes")
        text = raw.decode("utf-8")
        check_events(text, path)
        tree = yaml.load(text, Loader=get_yaml_loader())
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "strerror", None) or getattr(error, "problem", None)
        raise UserError(f"cannot read {path}: {reason or type(error).__name__}") from error
    return check_foreign(tree, str(path), trust, to_build)


def check_events(text: str, path: Path) -> None:
    """Refuse YAML that could expand or nest without bound, before a tree is made of it.

    A few aliases of aliases expand to any size; merge keys do so while the file is being read.

    Raises:
        UserError: the text has an alias, or is nested too deeply.
    """
    depth = 0
    for event in yaml.parse(text):
        if isinstance(event, yaml.AliasEvent):
            raise UserError(f"refused {path}: a saved configuration has no aliases (*name)")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_TREE + 1:
            raise UserError(f"refused {path}: it is nested deeper than {DEEPEST_TREE} levels")


def check_foreign(
    tree: Any, source: str, trust: Sequence[str] = (), to_build: bool = True
) -> DictConfig:
    """A configuration from elsewhere, once every value of it has been checked.

    Allowed are mappings with plain keys, lists, numbers, texts, true, false and null. A `_target_` is
    one that the packaged configs name, or a class that a trusted package defines.

    Args:
        tree: as read from a file.
        source: the file, for the message.
        trust: packages whose classes may be built, besides those of `trust_package`.
        to_build: see `read_config`.

    Raises:
        UserError: names the first value that is not allowed.
    """
    trust = [*_trusted, *trust]
    if not isinstance(tree, dict):
        raise UserError(f"refused {source}: it holds {kind(tree)}, not a configuration")
    check_groups(tree, source)
    for count, (path, key, value) in enumerate(walk(tree, "", 0, source)):
        if count > LARGEST_TREE:
            raise UserError(f"refused {source}: it holds more than {LARGEST_TREE:,} values")
        check_node(path, key, value, source)
        if key == "_target_" and to_build:
            check_target(path, value, source, trust)
    try:
        config = OmegaConf.create(tree)
    except Exception as error:  # such as an integer that no float can hold
        raise UserError(f"refused {source}: {type(error).__name__}") from error
    assert isinstance(config, DictConfig)
    return config


def check_groups(tree: dict[Any, Any], source: str) -> None:
    """Check that every config group is a mapping, and one of several parts a mapping of mappings.

    Raises:
        UserError: names the first that is not.
    """
    for name, about in KEYS.items():
        group = tree.get(name)
        if about.type is not None or group is None:
            continue
        parts = group.items() if about.several and isinstance(group, dict) else ()
        for path, node in ((name, group), *((f"{name}.{part}", node) for part, node in parts)):
            if node is not None and not isinstance(node, dict):
                raise UserError(f"refused {source}: {shown(path)} is {kind(node)}, not a mapping")


def walk(node: Any, path: str, depth: int, source: str) -> Iterator[tuple[str, Any, Any]]:
    """Every key and value of a tree, as (path, key, value)."""
    if depth > DEEPEST_TREE:
        raise UserError(f"refused {source}: it is nested deeper than {DEEPEST_TREE} levels")
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        below = f"{path}.{key}" if path else str(key)
        yield below, key, value
        if isinstance(value, dict | list):
            yield from walk(value, below, depth + 1, source)


def check_node(path: str, key: Any, value: Any, source: str) -> None:
    """Refuse one key with its value unless it is plain data."""
    where = f"refused {source}: {shown(path)}"
    if isinstance(value, str) and "${" in value:
        raise UserError(f"{where} is {shown(value)!r}; a saved configuration holds no interpolations")
    if type(value) not in PLAIN:  # no subclasses: they may compare as one thing and be another
        raise UserError(f"{where} is {kind(value)}; allowed are numbers, texts, lists and mappings")
    if value == "???":
        raise UserError(f"{where} is missing; a saved configuration has every value")
    if isinstance(key, str):
        if "${" in key:
            raise UserError(f"{where}: a key holds no interpolations")
        if key == "_target_":
            pass  # see `check_target`
        elif key == "_partial_":
            if not isinstance(value, bool):
                raise UserError(f"{where} must be true or false")
        elif key == "_convert_":
            if value not in ("none", "partial", "object", "all"):
                raise UserError(f"{where} must be none, partial, object or all")
        elif key.startswith("_"):
            raise UserError(f"{where}: of keys that begin with _ only _target_, _partial_ and _convert_ "
                            "are allowed")  # fmt: skip
    elif not isinstance(key, int):
        raise UserError(f"{where}: a key is a text, not {kind(key)}")


def check_target(path: str, target: Any, source: str, trust: Sequence[str]) -> None:
    """Refuse a `_target_` that neither the packaged configs of its group nor a trusted package has."""
    group = path.partition(".")[0]
    if isinstance(target, str) and target in packaged_targets(group) | added_targets(group):
        return
    shown_target = shown(target)
    if isinstance(target, str) and PACKAGE_NAME.fullmatch(target):
        for package in trust:
            if target.startswith(f"{package}."):
                if not defined_as(target, package):
                    raise UserError(f"refused {source}: {shown_target} is not a class that {package} "
                                    "defines")  # fmt: skip
                return
    package = target.partition(".")[0] if isinstance(target, str) else ""
    hint = (
        f"; if the class is yours, say so with --trust {shown(package)}"
        if PACKAGE_NAME.fullmatch(package) and package not in ("builtins", "modgpt", "torch")
        else ""
    )
    raise UserError(
        f"refused {source}: {shown(path)} names {shown_target!r}, which no packaged config has there"
        f"{hint}"
    )


def defined_as(target: str, package: str) -> bool:
    """Whether `target` is a class, or a method of a class, that a module of `package` defines itself."""
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module_name), name)
    except (ImportError, AttributeError, ValueError):
        return False
    home = getattr(found, "__module__", "")
    return isclass(found) and (home == package or home.startswith(f"{package}."))


@cache
def packaged_targets(group: str) -> frozenset[str]:
    """Every `_target_` in the packaged configs of a group; the groups of the model share theirs."""
    together = (*PARTS, "model", "shared") if group in (*PARTS, "model") else (group,)
    found = set()
    for name in together:
        for file in (CONFIG_DIR / name).rglob("*.yaml") if name in (*KEYS, "shared") else ():
            found |= set(targets_in(OmegaConf.to_container(OmegaConf.load(file), resolve=False)))
    return frozenset(found)


def added_targets(group: str) -> set[str]:
    """Every `_target_` of a group in the config folders that the user has added to the search."""
    if not config_dirs() or group not in groups():
        return set()
    together = [g for g in (*PARTS, "model") if group in (*PARTS, "model")] or [group]
    nodes = [option_node(g, option) for g in together for option in (*options(g), *variants(g))]
    return {target for node in nodes for target in targets_in(OmegaConf.to_container(node))}


def targets_in(node: Any) -> Iterator[str]:
    """The `_target_`s of a tree."""
    if isinstance(node, dict):
        if isinstance(node.get("_target_"), str):
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from targets_in(value)


def kind(value: Any) -> str:
    """The kind of a value, for a message."""
    return {dict: "a mapping", list: "a list", type(None): "nothing"}.get(
        type(value), f"a {type(value).__name__}"
    )


def shown(value: Any) -> str:
    """A value for a message: printable, and not longer than a line."""
    text = "".join(c if c.isprintable() else "?" for c in str(value)[:200])
    return text if len(text) <= 80 else f"{text[:77]}…"
