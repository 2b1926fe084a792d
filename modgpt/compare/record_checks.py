"""The values of a run's `result.json`, each checked for its type and range."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any

from modgpt.compare.columns import LOSS, NOT_FACTORS, NUMBERS, OURS, STATUSES
from modgpt.compare.escaping import visible
from modgpt.compare.recipes import plain
from modgpt.errors import UserError, did_you_mean
from modgpt.runs.record import read_result

LARGEST = 1e24  # more than the FLOPs or bytes of any training
NEVER_NEGATIVE = {*NUMBERS, "seed", "threads"}


def read_record(folder: Path) -> dict[str, Any]:
    """A run's `result.json` as a dictionary with a known status.

    Raises:
        UserError: it is damaged.
    """
    if not (folder / "result.json").is_file():
        raise UserError("result.json is not a file")
    try:
        record: object = read_result(folder)
    except UserError as error:
        raise UserError(f"result.json cannot be read: {error.__cause__ or error}") from error
    except RecursionError as error:
        raise UserError("result.json is nested too deeply") from error
    if not isinstance(record, dict):
        raise UserError(f"result.json holds a {type(record).__name__}, not an object")
    status = record.get("status")
    if not isinstance(status, str) or status not in STATUSES:
        hint = did_you_mean(status, STATUSES) if isinstance(status, str) else ""
        raise UserError(f"result.json: status={shortened(status)} is not known{hint}")
    return record


def record_choices(record: dict[str, Any]) -> dict[str, str]:
    """The option in every group.

    Raises:
        UserError: there are none, or a name is not one of a group.
    """
    choices = record.get("choices")
    if not isinstance(choices, dict) or not choices:
        raise UserError("result.json has no choices: the options of the config groups")
    for group, option in choices.items():
        if not isinstance(option, str) or group in OURS - NOT_FACTORS:
            raise UserError(
                f"result.json: {group}={shortened(option)} is not a choice in a config group"
            )
    return {visible(group): visible(option) for group, option in choices.items()}


def overrides_of(record: dict[str, Any]) -> list[str]:
    """The overrides of a run.

    Raises:
        UserError: they are not a list of texts, or one sets a column of our own.
    """
    overrides = record.get("overrides", [])
    if not isinstance(overrides, list) or not all(isinstance(o, str) for o in overrides):
        raise UserError("result.json: overrides is not a list of texts")
    for override in overrides:
        if split_override(override)[0] in OURS - NOT_FACTORS:
            raise UserError(f"result.json: {shortened(override)} is not an override")
    return overrides


def split_override(override: str) -> tuple[str, str]:
    """Key and value of `+optimizer.lr=1e-3`; equal numbers have equal texts."""
    key, _, value = override.partition("=")
    return visible(key.lstrip("+~")), visible(plain(value))


def final_loss(record: dict[str, Any]) -> float | None:
    """The loss in the record; NaN for one that is not finite, None where there is none."""
    value = record.get(LOSS)
    if isinstance(value, float) and not isfinite(value):
        return float("nan")
    return number(record, LOSS)


def number(record: dict[str, Any], name: str) -> float | None:
    """A number of the record, None where it has none.

    Raises:
        UserError: the value is not a number, not finite, or impossible.
    """
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"result.json: {name}={shortened(value)} is not a number")
    if not abs(value) <= LARGEST:
        raise UserError(f"result.json: {name}={shortened(value)} is not a possible number")
    if value < 0 and name in NEVER_NEGATIVE:
        raise UserError(f"result.json: {name}={shortened(value)} is negative")
    return float(value)


def whole(record: dict[str, Any], name: str) -> int | None:
    """A whole number of the record, None where it has none.

    Raises:
        UserError: the value is not a whole number.
    """
    value = number(record, name)
    if value is not None and (value != int(value) or value >= 2**53):
        raise UserError(f"result.json: {name}={shortened(value)} is not a possible whole number")
    return None if value is None else int(value)


def text(record: dict[str, Any], name: str) -> str | None:
    """A text of the record, None where it has none.

    Raises:
        UserError: the value is a list or an object.
    """
    value = record.get(name)
    if isinstance(value, list | dict):
        raise UserError(f"result.json: {name}={shortened(value)} is not a text")
    return None if value is None else visible(value)


def shortened(value: object) -> str:
    """A value for a message, on one line of at most 60 characters."""
    try:
        shown = visible(repr(value))
    except ValueError:  # an integer with thousands of digits
        return "a huge number"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
