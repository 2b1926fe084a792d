"""One run as a row of the table: what its record says, checked and typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import yaml

from modgpt.compare.columns import (
    CONDITIONS,
    DIVERGED,
    FAILED,
    FINISHED,
    HIDDEN_NUMBERS,
    HIDDEN_TEXTS,
    LOSS,
    NUMBERS,
)
from modgpt.compare.escaping import visible
from modgpt.compare.recipes import defaults, value_at
from modgpt.compare.record_checks import (
    final_loss,
    number,
    overrides_of,
    read_record,
    record_choices,
    split_override,
    text,
    whole,
)
from modgpt.errors import UserError

MOST_VALUES = 100_000  # in a config.yaml; ours have a few hundred


@dataclass(frozen=True)
class RunRow:
    """What the comparison uses of one run.

    Attributes:
        path: its folder.
        status: one of `STATUSES`.
        reason: why it did not finish; empty otherwise.
        choices: the option in every config group.
        given: the overridden keys and their values.
        numbers: the columns `NUMBERS`; None where the record has none.
        conditions: the columns `CONDITIONS`, `HIDDEN_TEXTS`, `HIDDEN_NUMBERS` and `latest_loss`.
        config: its config.yaml; None where there is none.
    """

    path: Path
    status: str
    reason: str
    choices: dict[str, str]
    given: dict[str, str]
    seed: int | None
    numbers: dict[str, float | None]
    conditions: dict[str, Any]
    config: dict[str, Any] | None = field(repr=False)

    def choice(self, group: str) -> str:
        """The option in a group; `none` where the group was left out."""
        return self.choices.get(group, "none")

    def value(self, key: str) -> str:
        """The value of a key: as overridden, else as in config.yaml, else the default."""
        return self.given[key] if key in self.given else visible(value_at(key, self.complete_config))

    @cached_property
    def complete_config(self) -> dict[str, Any]:
        """config.yaml, or the default configuration for a job that never started."""
        return defaults(self.choices.get("experiment"))[0] if self.config is None else self.config


def read_run_row(folder: Path) -> RunRow:
    """Read a run's `result.json` and `config.yaml`.

    Raises:
        UserError: a file is damaged, or has a value that no run writes; the message names the value.
    """
    record = read_record(folder)
    choices = record_choices(record)
    given = dict(split_override(text) for text in overrides_of(record))
    numbers = {name: number(record, name) for name in NUMBERS if name != LOSS}
    status, reason = record["status"], text(record, "reason") or ""
    loss = final_loss(record)
    if status == FINISHED and loss is None:
        status, reason = FAILED, reason or "finished without a final loss"
    elif status == FINISHED and isnan(loss or 0.0):
        status, reason = DIVERGED, reason or "the final loss is not a finite number"
    known = loss if loss is not None and isfinite(loss) else None
    texts = {name: text(record, name) for name in (*CONDITIONS, *HIDDEN_TEXTS) if name != "threads"}
    texts["match"] = texts["match"] or given.get("match")
    hidden = {name: number(record, name) for name in HIDDEN_NUMBERS}
    return RunRow(
        path=folder,
        status=status,
        reason=reason,
        choices=choices,
        given=given,
        seed=whole(record, "seed"),
        # The latest loss of a run that goes on is not a final one.
        numbers={LOSS: known if status == FINISHED else None} | numbers,
        conditions=texts | hidden | {"threads": whole(record, "threads"), "latest_loss": known},
        config=read_config(folder),
    )


def read_config(folder: Path) -> dict[str, Any] | None:
    """A run's `config.yaml`; None where there is none, as for a skipped job.

    Raises:
        UserError: it is damaged.
    """
    path = folder / "config.yaml"
    if not path.exists():
        return None
    if not path.is_file():
        raise UserError("config.yaml is not a file")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), loader)
        if not isinstance(config, dict):
            raise UserError("config.yaml does not hold a mapping")
        if values_in(config, MOST_VALUES) >= MOST_VALUES:
            raise UserError("config.yaml is too large")
    except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"config.yaml cannot be read: {visible(error)}") from error
    return config


def values_in(tree: object, most: int) -> int:
    """Number of values in a tree, counted no further than `most`.

    YAML's references let a small file describe a huge tree.
    """
    if not isinstance(tree, dict | list):
        return 1
    count = 1
    for child in tree.values() if isinstance(tree, dict) else tree:
        count += values_in(child, most - count)
        if count >= most:
            break
    return count
