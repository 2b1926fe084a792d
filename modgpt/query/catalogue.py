"""All runs below some folders as the columns of one table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from modgpt.compare.folders import Problem, find_runs, names_of
from modgpt.compare.recipes import value_at
from modgpt.compare.run_row import read_config, split_override
from modgpt.config.keys import KEYS, PARTS
from modgpt.errors import UserError
from modgpt.runs.record import RunRecord, read_record
from modgpt.text import visible

MOST_NAMES = 500  # options and overrides of one run
# Fields of a record that are no single value.
NESTED = ("choices", "overrides", "versions", "resumed_at_steps", "format")
TEXTS = (
    *("status", "reason", "match", "corpus_sha256", "device", "precision", "attention_backend"),
    *("init_from", "source", "started_at", "finished_at", "git_revision"),
)
COUNTS = (
    *("seed", "final_step", "best_step", "parameters", "active_parameters", "matched_hidden"),
    *("vocab_size", "tokens_seen", "threads", "peak_memory_bytes"),
)
NUMBERS = (
    *("final_val_loss", "final_val_bits_per_byte", "final_val_accuracy", "best_val_loss"),
    *("match_reference", "flops_per_token", "tokens_per_character", "tokens_per_byte"),
    *("tokens_per_second", "wall_seconds"),
)
FLAGS = ("compiled",)
TYPES = (
    dict.fromkeys(("run", "folder", "changed", *TEXTS), "VARCHAR")
    | dict.fromkeys(COUNTS, "BIGINT")
    | dict.fromkeys(NUMBERS, "DOUBLE")
    | dict.fromkeys(FLAGS, "BOOLEAN")
)


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
    paths, problems = find_runs(folders)
    entries = []
    for path in paths:
        try:
            entries.append(read_entry(path))
        except UserError as error:
            problems.append(Problem(path, visible(error).removeprefix(f"{visible(path)}/")))
    if not entries:
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"no run can be read: {problems[0]}{others}")
    return assemble(entries, problems)


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
    values = {name: value for name, value in asdict(record).items() if name not in NESTED}
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


def group_order(group: str) -> tuple[int, str]:
    """Parts of the model first, the other groups by name."""
    return (PARTS.index(group) if group in PARTS else len(PARTS), group)
