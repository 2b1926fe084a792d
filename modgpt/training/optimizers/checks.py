"""Checks of an optimizer's arguments, each with one line that names the value."""

from __future__ import annotations

from collections.abc import Sequence


def check_not_negative(**values: float) -> None:
    """Refuse negative rates.

    Raises:
        ValueError: names the first value that is negative or not a number.
    """
    for name, value in values.items():
        if not value >= 0:  # also NaN
            raise ValueError(f"optimizer.{name} must not be negative, got {value}")


def check_betas(**values: float) -> None:
    """Refuse decay rates of running means outside [0, 1).

    Raises:
        ValueError: names the first one.
    """
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"optimizer.{name} must lie in [0, 1), got {value}")


def check_at_least_one(**values: int) -> None:
    """Refuse numbers of steps or sizes below 1.

    Raises:
        ValueError: names the first one.
    """
    for name, value in values.items():
        if not value >= 1:
            raise ValueError(f"optimizer.{name} must be at least 1, got {value}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a word that is none of the choices.

    Raises:
        ValueError: with the choices.
    """
    if value not in choices:
        raise ValueError(f"optimizer.{name} must be {' or '.join(choices)}, got {value!r}")
