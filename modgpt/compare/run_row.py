"""One run as a row of the table, from its `result.json` and `config.yaml`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
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
    OURS,
)
from modgpt.compare.recipes import defaults, plain, select, value_at
from modgpt.config.overrides import shortened
from modgpt.config.seeds import DATA, WEIGHTS, seed_label
from modgpt.config.trust import DEEPEST_TREE, LARGEST_FILE
from modgpt.errors import UserError
from modgpt.runs.record import RunRecord, read_record
from modgpt.text import visible

LARGEST = 1e24  # more than the FLOPs or bytes of any training


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
        conditions: the columns `CONDITIONS`, `HIDDEN_TEXTS`, `HIDDEN_NUMBERS`, `latest_loss` and
            `command`.
        config: its config.yaml; None where there is none.
    """

    path: Path
    status: str
    reason: str
    choices: dict[str, str]
    given: dict[str, str]
    record_seed: int
    numbers: dict[str, float | None]
    conditions: dict[str, Any]
    config: dict[str, Any] | None = field(repr=False)

    def choice(self, group: str) -> str:
        """The option in a group; `none` where the group was left out."""
        return self.choices.get(group, "none")

    def value(self, key: str) -> str:
        """The value of a key: as overridden, else as in config.yaml, else the default."""
        return self.given[key] if key in self.given else visible(value_at(key, self.complete_config))

    @property
    def seed(self) -> str:
        """A label of the run's seeds (`seed_label`)."""
        weights, data = self.seed_of(WEIGHTS), self.seed_of(DATA)
        drops = self.value("model.dropout") not in ("0", "null")
        return seed_label(self.record_seed, weights, data, drops)

    def seed_of(self, key: str) -> str:
        """One of the seeds that follow `seed`, unless they are set."""
        value = select(self.config, key)
        return self.given.get(key, str(self.record_seed)) if value is None else visible(plain(value))

    @cached_property
    def complete_config(self) -> dict[str, Any]:
        """config.yaml, or the default configuration for a job that never started."""
        return defaults(self.choices.get("experiment"))[0] if self.config is None else self.config


def read_run_row(folder: Path) -> RunRow:
    """Read a run.

    Raises:
        UserError: a file is damaged, or has a value that no run writes; the message names the value.
    """
    if not (folder / "result.json").is_file():
        raise UserError("result.json is not a file")
    record = read_record(folder)
    given = dict(map(split_override, record.overrides))
    for name in (*record.choices, *given):
        if name in OURS:
            raise UserError(f"result.json: {name} is not a config group or key")
    loss = number(record, LOSS)
    status, reason = outcome(record, loss)
    texts = {name: text(record, name) for name in (*CONDITIONS, *HIDDEN_TEXTS) if name != "threads"}
    others = {name: number(record, name) for name in (*NUMBERS, *HIDDEN_NUMBERS) if name != LOSS}
    hidden = {name: others.pop(name) for name in HIDDEN_NUMBERS}
    return RunRow(
        path=folder,
        status=status,
        reason=reason,
        choices={visible(group): visible(option) for group, option in record.choices.items()},
        given=given,
        record_seed=record.seed,
        # The latest loss of a run that goes on is not a final one.
        numbers={LOSS: loss if status == FINISHED else None} | others,
        conditions=texts
        | hidden
        | {"threads": record.threads, "latest_loss": loss, "command": command(record)},
        config=read_config(folder),
    )


def outcome(record: RunRecord, loss: float | None) -> tuple[str, str]:
    """Status and reason; a run that finished without a finite loss did not finish."""
    reason = visible(record.reason or "")
    if record.status != FINISHED or loss is not None:
        return record.status, reason
    if record.final_val_loss is None:
        return FAILED, reason or "finished without a final loss"
    return DIVERGED, reason or "the final loss is not a finite number"


def command(record: RunRecord) -> str:
    """The command line that trains the same run again, quoted for a shell."""
    return shlex.join(["modgpt", "train", *map(visible, record.overrides)])


def split_override(override: str) -> tuple[str, str]:
    """Key and value of `+optimizer.lr=1e-3`; equal numbers have equal texts."""
    key, _, value = override.partition("=")
    return visible(key.lstrip("+~")), visible(plain(value))


def number(record: RunRecord, name: str) -> float | None:
    """A number of the record, None where it has none or one that is not finite.

    Raises:
        UserError: the number is impossible.
    """
    value = getattr(record, name)
    if value is None or not isfinite(value):
        return None
    if not 0 <= value <= LARGEST:
        raise UserError(f"result.json: {name}={value:g} is not a possible value")
    return float(value)


def text(record: RunRecord, name: str) -> str | None:
    """A text of the record, None where it has none."""
    value = getattr(record, name)
    return None if value is None else visible(value)


def read_config(folder: Path) -> dict[str, Any] | None:
    """A run's `config.yaml` as plain data, from which nothing is built; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = folder / "config.yaml"
    if not path.exists():
        return None
    if not path.is_file():
        raise UserError("config.yaml is not a file")
    if path.stat().st_size > LARGEST_FILE:
        raise UserError(f"config.yaml is larger than {LARGEST_FILE:,} bytes")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast
    try:
        text = path.read_text(encoding="utf-8")
        check_structure(text, loader)
        config = yaml.load(text, loader)
    except UserError:
        raise
    except (OSError, ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise UserError(f"config.yaml cannot be read: {shortened(visible(error), 200)}") from error
    if not isinstance(config, dict):
        raise UserError("config.yaml does not hold a mapping")
    return config


def check_structure(text: str, loader: Any) -> None:
    """Check a YAML text before it is loaded: no references, no deep nesting.

    References let a small file describe a huge tree. The loader in C overflows its stack on deep trees.

    Raises:
        UserError: the text has one of them.
    """
    depth = 0
    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.AliasEvent):
            raise UserError("config.yaml has a reference, which no saved configuration has")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST_TREE:
            raise UserError(f"config.yaml is nested deeper than {DEEPEST_TREE} levels")
