"""A catalogue in DuckDB: questions in SQL, without access to files, network or settings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from modgpt.errors import UserError
from modgpt.query.catalogue import Catalogue

TABLE = "runs"
CLOSED = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",  # or SQL could read Python's variables
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "temp_directory": "",
    "memory_limit": "2GB",
}
LONGEST = 10_000  # characters of a query


@dataclass(frozen=True)
class Answer:
    """What a query returns: the names of its columns, and its rows."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


@dataclass(frozen=True)
class Question:
    """Which runs, and what of them.

    Attributes:
        columns: expressions of SQL, separated by commas.
        where: a condition; None for every run.
        sort: expressions to order by.
        limit: rows at most; None for all.
    """

    columns: str
    where: str | None
    sort: str
    limit: int | None

    def sql(self) -> str:
        """As one statement. Each part ends with its line, so that a comment ends there, too."""
        condition = f"WHERE (\n{self.where}\n)\n" if self.where is not None else ""
        most = f"LIMIT {self.limit}" if self.limit is not None else ""
        return f"SELECT {self.columns}\nFROM {TABLE}\n{condition}ORDER BY {self.sort}\n{most}"


def check_packages() -> None:
    """Check that DuckDB is installed.

    Raises:
        UserError: it is not; the message has the command that installs it.
    """
    if find_spec("duckdb") is None:
        raise UserError("querying needs duckdb: install with python -m pip install -e '.[query]'")


class Database:
    """A catalogue as the table `runs` of a DuckDB in memory."""

    def __init__(self, catalogue: Catalogue) -> None:
        import duckdb

        self.names = list(catalogue.columns)
        self.connection = duckdb.connect(":memory:", config=dict(CLOSED))
        types = catalogue.types
        columns = ", ".join(f"{quoted(name)} {types[name]}" for name in self.names)
        self.connection.execute(f"CREATE TABLE {TABLE} ({columns})")
        lists = ", ".join(f"unnest(?::{types[name]}[])" for name in self.names)
        self.connection.execute(f"INSERT INTO {TABLE} SELECT {lists}", list(catalogue.columns.values()))
        self.connection.execute("SET lock_configuration = true")

    def answer(self, sql: str) -> Answer:
        """The result of one SELECT; names such as `optimizer.lr` need no quotes.

        Raises:
            UserError: it is not one SELECT, or DuckDB refuses it.
        """
        import duckdb

        if len(sql) > LONGEST:
            raise UserError(f"the query has {len(sql):,} characters, at most {LONGEST:,} are read")
        try:
            statements = self.connection.extract_statements(self.with_quotes(sql))
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise UserError("give one SELECT: a query reads the table runs, it changes nothing")
            self.connection.execute(statements[0])
            described = self.connection.description or []
            return Answer([str(column[0]) for column in described], self.connection.fetchall())
        except duckdb.InterruptException as error:
            raise KeyboardInterrupt from error
        except duckdb.Error as error:
            raise UserError(first_line(error)) from error

    def with_quotes(self, sql: str) -> str:
        """Quote the names of columns that are no plain names; leave texts and quoted names alone."""
        odd = [name for name in self.names if not name.isidentifier()]
        if not odd:
            return sql
        longest_first = sorted(odd, key=len, reverse=True)
        names = "|".join(re.escape(name) for name in longest_first)
        pattern = rf"""'(?:[^']|'')*'|"(?:[^"]|"")*"|(?<![\w.@])({names})(?![\w.@])"""
        return re.sub(pattern, lambda found: quoted(found[1]) if found[1] else found[0], sql)


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def first_line(error: Exception) -> str:
    """DuckDB's message without the lines that repeat the query."""
    lines = [line.strip() for line in str(error).split("LINE ", 1)[0].splitlines() if line.strip()]
    return " ".join(lines) or type(error).__name__


def column_list(names: Sequence[str]) -> str:
    """Columns for a SELECT."""
    return ", ".join(map(quoted, names))
