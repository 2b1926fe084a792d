"""Overrides: parsed once, checked before anything is composed, quoted where we write them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, Sweep
from hydra.errors import HydraException

from modgpt.config.keys import KEYS
from modgpt.config.search import groups, options, variants
from modgpt.errors import UserError, did_you_mean

# Settings of Hydra's that modgpt decides itself: a run's folder is made after everything is checked.
OURS = {
    "hydra.run.dir": "output_dir=FOLDER and run_name=NAME",
    "hydra.sweep.dir": "sweep_dir=FOLDER and sweep_name=NAME",
    "hydra.sweep.subdir": "sweep_dir=FOLDER and sweep_name=NAME",
    "hydra.output_subdir": "output_dir=FOLDER",
    "hydra.job.chdir": "a path relative to the working directory",
}


@cache
def parse_one(override: str) -> Override:
    """Hydra's reading of one override.

    Raises:
        UserError: it is not of the form key=value.
    """
    try:
        return OverridesParser.create().parse_override(override)
    except (HydraException, RecursionError) as error:
        raise UserError(
            f"cannot read {shortened(override)!r}: write key=value, such as ffn=moe or "
            "optimizer.lr=1e-3; quote values with spaces or commas: 'run_name=\"a, b\"'"
        ) from error


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's reading of the overrides.

    Raises:
        UserError: one of them is not of the form key=value.
    """
    return [parse_one(override) for override in overrides]


def key_of(override: str) -> str:
    """What an override sets: its group with the package, or its key."""
    return parse_one(override).get_key_element().lstrip("+~")


def assignment(key: str, value: object) -> str:
    """An override that sets a key to a text, quoted so that Hydra reads nothing into the text."""
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def shortened(text: str, length: int = 80) -> str:
    """A text for a message, cut in the middle where it is long."""
    return text if len(text) <= length else f"{text[: length // 2]}…{text[-length // 4 :]}"


def check_overrides(overrides: Sequence[str], multirun: bool = False) -> None:
    """Refuse unknown groups and options before anything is composed.

    Args:
        overrides: of the command line.
        multirun: several values of one key are several jobs.

    Raises:
        UserError: with what was meant, or what there is.
    """
    for override in parse(overrides):
        name = override.key_or_group
        if name in OURS:
            raise UserError(f"{name} is decided by modgpt: use {OURS[name]}")
        if name.split(".")[0].split("/")[0] == "hydra":
            continue  # Hydra checks its own groups and keys
        if "/" in name or override.package is not None or name in groups():
            check_option(override, name)
        else:
            check_key(override, name)
        if name == "sweep" and override.is_sweep_override():
            raise UserError(
                f"{override.input_line}: one sweep at a time; run the sweeps one after the other"
            )
        if override.is_sweep_override() and not multirun:
            raise UserError(
                f"{override.input_line} gives several values: add -m to train one job for each"
            )


def check_key(override: Override, name: str) -> None:
    """Refuse a key whose first part is unknown, Hydra's own keys, and `glob` outside a group."""
    top, leaf = name.split(".")[0], name.rpartition(".")[2]
    if leaf.startswith("_") and leaf != "_target_":
        raise UserError(
            f"{override.input_line}: {leaf} says how Hydra builds an option; it belongs into a YAML of "
            "yours, see --config-dir"
        )
    check_known(top, "group or key" if top == name else "group")
    if isinstance(override.value(), Glob):
        raise UserError(
            f"{override.input_line}: glob lists the options of a group, and {name} is a key; "
            f"list the values: {name}=1,2,3"
        )


def check_option(override: Override, group: str) -> None:
    """Refuse an unknown group, an unknown option, and a value that is not the name of an option."""
    if group not in groups():
        raise UserError(f"unknown group {group!r}{did_you_mean(group, groups())}")
    value = override.value()
    if value is None and not override.is_delete():  # Hydra takes the words, and fails on the value
        key = override.get_key_element()
        raise UserError(f"{key}=null is not possible: leave a group out with '~{key}'")
    if isinstance(value, Glob) or value is None:
        return
    if isinstance(value, ChoiceSweep):
        listed = value.list
    elif isinstance(value, list) and value and group in KEYS and KEYS[group].several:
        listed = value
    elif isinstance(value, Sweep | list | dict):
        raise UserError(
            f"{override.input_line}: write the name of an option, such as {group}={options(group)[0]}"
        )
    else:
        listed = [value]
    for option in listed:
        name = str(getattr(option, "text", option))  # a quoted string
        if name not in options(group) and name not in variants(group):
            raise UserError(
                f"unknown option {group}={shortened(name)}{did_you_mean(name, options(group))} "
                f"({group} has: {', '.join(options(group))})"
            )


def check_known(name: str, kind: str) -> None:
    """Refuse a name that is neither a group nor a key of `train.yaml`."""
    keys = [key for key, about in KEYS.items() if about.type is not None]
    known = {*groups(), *keys}
    if name not in known:
        raise UserError(
            f"unknown {kind} {shortened(name)!r}{did_you_mean(name, known)} "
            f"(groups: {', '.join(groups())}; keys: {', '.join(sorted(keys))})"
        )
