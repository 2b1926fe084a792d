"""All runs below some folders as the columns of one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from modgpt.compare.folders import Problem, names_of, read_runs
from modgpt.compare.recipes import value_at
from modgpt.compare.run_row import read_config, split_override
from modgpt.config.keys import KEYS, group_order
from modgpt.errors import UserError
from modgpt.runs.record import RunRecord, read_record
from modgpt.text import visible

MOST_NAMES = 500  # options and overrides of one run
KINDS = {str: "VARCHAR", int: "BIGINT", float: "DOUBLE", bool: "BOOLEAN"}  # in DuckDB


def kind_of(hint: Any) -> str | None:
    """DuckDB's type for a field of a record; None for a list or a mapping."""
    if get_origin(hint) is Literal:
        return KINDS[str]
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    return KINDS.get(kinds[0]) if len(kinds) == 1 and get_origin(hint) not in (list, dict) else None


# A column for every field of a record that is a single value.
TYPES = dict.fromkeys(("run", "folder", "changed"), "VARCHAR") | {
    name: kind
    for name, hint in get_type_hints(RunRecord).items()
    if name != "format" and (kind := kind_of(hint)) is not None
}


@dataclass(frozen=True)
class Entry:
    """One run as its record tells it.

    Attributes:
        folder: the run's.
        values: of the fields of the record, by name; no number that is infinite or not a number.
        choices: the option of every group.
        given: the overridden keys that choose no option, with their values.
    """

    folder: Path
    values: dict[str, Any]
    choices: dict[str, str]
    given: dict[str, str]


@dataclass(frozen=True)
class Catalogue:
    """The runs as a table.

    Attributes:
        columns: by name; each has a value per run.
        types: of the columns, in DuckDB's words.
        groups: the columns that are config groups, parts of the model first.
        keys: the columns that are keys which some run overrides.
        problems: what was left out because it could not be read.
    """

    columns: dict[str, list[Any]]
    types: dict[str, str]
    groups: list[str]
    keys: list[str]
    problems: list[Problem] = field(default_factory=list)


def read_catalogue(folders: Sequence[Path]) -> Catalogue:
    """Read the record of every run below the folders; damaged ones are listed in `problems`.

    Raises:
        UserError: a folder does not exist, or no run can be read.
    """
    return assemble(*read_runs(folders, read_entry))


def read_entry(folder: Path) -> Entry:
    """Read a run's record.

    Raises:
        UserError: the record is damaged, or names an option or key as one of our columns.
    """
    if not (folder / "result.json").is_file():
        raise UserError("result.json is not a file")
    record = read_record(folder)
    if len(record.choices) + len(record.overrides) > MOST_NAMES:
        raise UserError(f"result.json: more than {MOST_NAMES} options and overrides")
    choices = {visible(group): visible(option) for group, option in record.choices.items()}
    given = dict(map(split_override, record.overrides))
    for name in (*choices, *given):
        if name.casefold() in TYPES and name not in KEYS:
            raise UserError(f"result.json: {name} is not a config group or key")
    keys = {k: v for k, v in given.items() if k not in (*choices, "seed") and k[:5] != "hydra"}
    return Entry(folder, values_of(record), choices, keys)


def values_of(record: RunRecord) -> dict[str, Any]:
    """The single values of a record."""
    values = {name: value for name, value in asdict(record).items() if name in TYPES}
    for name, value in values.items():
        if isinstance(value, float) and not isfinite(value):
            values[name] = None
        elif isinstance(value, str):
            values[name] = visible(value)
    return values


def assemble(entries: Sequence[Entry], problems: list[Problem]) -> Catalogue:
    """The table of the runs.

    A key that some run overrides is a column. Where a run leaves it alone, its value comes from that
    run's `config.yaml`.
    """
    groups = distinct({group for entry in entries for group in entry.choices}, TYPES)
    groups.sort(key=group_order)
    keys = distinct({key for entry in entries for key in entry.given}, (*TYPES, *groups))
    names = names_of([entry.folder for entry in entries])
    settings = [settings_of(entry, keys) for entry in entries]
    columns: dict[str, list[Any]] = {
        "run": names,
        "folder": [visible(entry.folder) for entry in entries],
        "changed": [" ".join(f"{k}={v}" for k, v in sorted(entry.given.items())) for entry in entries],
    }
    columns |= {n: [entry.values[n] for entry in entries] for n in TYPES if n not in columns}
    columns |= {group: [entry.choices.get(group) for entry in entries] for group in groups}
    types = TYPES | dict.fromkeys(groups, "VARCHAR")
    for key in keys:
        types[key], columns[key] = typed([row[key] for row in settings])
    return Catalogue(columns, types, groups, keys, problems)


def settings_of(entry: Entry, keys: Sequence[str]) -> dict[str, str | None]:
    """The values of some keys: as overridden, else as in `config.yaml`; None where there is none."""
    missing = [key for key in keys if key not in entry.given]
    config: dict[str, Any] | None = None
    if missing:
        try:
            config = read_config(entry.folder)
        except UserError:
            config = None  # the record counts
    found: dict[str, str | None] = dict.fromkeys(missing)
    if config is not None:
        values = {key: visible(value_at(key, config)) for key in missing}
        found = {key: None if value == "null" else value for key, value in values.items()}
    return entry.given | found


def typed(values: list[str | None]) -> tuple[str, list[Any]]:
    """A column of numbers where all values are numbers, else of texts."""
    try:
        return "DOUBLE", [None if value in (None, "null") else float(value) for value in values]
    except ValueError:
        return "VARCHAR", values


def distinct(names: Iterable[str], used: Iterable[str]) -> list[str]:
    """The names that can be columns beside others: SQL takes no empty one, and ignores case."""
    taken = {"", *(name.casefold() for name in used)}
    found: dict[str, str] = {}
    for name in sorted(names, reverse=True):  # of two, the one in lower case
        found.setdefault(name.casefold(), name)
    return sorted(name for folded, name in found.items() if folded not in taken)
