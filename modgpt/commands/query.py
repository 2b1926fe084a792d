"""A catalogue of runs: modgpt query [FOLDER …] [--where CONDITION] [--sql SELECT]."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from modgpt.commands.ending import exit_code
from modgpt.commands.flags import Parser
from modgpt.errors import UserError

if TYPE_CHECKING:
    from modgpt.query.catalogue import Catalogue

# Columns of the table besides the choices that differ; without a value in any run a column is left out.
SHOWN = (
    *("changed", "seed", "status", "final_val_loss", "final_val_accuracy", "parameters", "tokens_seen"),
    *("final_step", "wall_seconds", "device", "folder"),
)
SORT = "final_val_loss NULLS LAST, folder"
LIMIT = 50


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of `modgpt query`."""
    parser = Parser(
        prog="modgpt query",
        description="List the runs below folders, one row each: what was tried, with what result. Every "
        "group, every key that some run overrides and every field of result.json is a column.",
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="searched for runs (default: outputs)"
    )
    parser.add_argument(
        "--where", metavar="CONDITION", help="of SQL, such as \"ffn='moe' and final_val_loss < 1.7\""
    )
    parser.add_argument("--columns", metavar="NAMES", help="to show, separated by commas; * for all")
    parser.add_argument(
        "--sort",
        metavar="NAMES",
        help='to sort by, such as "wall_seconds desc" (default: final_val_loss)',
    )
    parser.add_argument(
        "--limit", type=int, metavar="N",
        help=f"rows at most; 0 for all (default: {LIMIT}, with --csv all)",
    )  # fmt: skip
    parser.add_argument(
        "--sql", metavar="SELECT", help="a whole query of the table runs, instead of the flags above"
    )
    parser.add_argument("--csv", action="store_true", help="print CSV, with all digits")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    return exit_code(lambda: run(parse_arguments(argv)), UserError)


def run(arguments: argparse.Namespace) -> int:
    """Read the runs, ask, print; returns the exit code."""
    flags = ("where", "columns", "sort", "limit")
    given = [f"--{name}" for name in flags if getattr(arguments, name) is not None]
    if arguments.sql is not None and given:
        raise UserError(f"--sql is a whole query: leave out {', '.join(given)}")
    if arguments.limit is not None and not 0 <= arguments.limit < 2**63:
        raise UserError(f"--limit must be at least 0, got {arguments.limit}")
    # Only now: --help and a wrong flag need not wait for the packages.
    from modgpt.query.catalogue import read_catalogue
    from modgpt.query.database import Database, Question, check_packages, column_list
    from modgpt.query.output import print_csv, print_problems, print_table

    check_packages()
    catalogue = read_catalogue(arguments.folders or [Path("outputs")])
    database = Database(catalogue)
    found = None
    if arguments.sql is not None:
        answer = database.answer(arguments.sql)
    else:
        limit = arguments.limit
        if limit is None:
            limit = 0 if arguments.csv else LIMIT
        columns = arguments.columns
        if columns is None:
            columns = "*" if arguments.csv else column_list(default_columns(catalogue))
        question = Question(columns, arguments.where, arguments.sort or SORT, limit or None)
        answer = database.answer(question.sql())
        if len(answer.rows) == limit:
            counted = Question("1", arguments.where, "1", None)
            found = len(database.answer(counted.sql()).rows)
    if arguments.csv:
        print_csv(answer)
    else:
        print_table(answer, found)
    print_problems(catalogue.problems)
    return 0


def default_columns(catalogue: Catalogue) -> list[str]:
    """The groups in which the runs differ, and the result."""
    columns = catalogue.columns
    differ = [group for group in catalogue.groups if len(set(columns[group])) > 1]
    shown = [name for name in SHOWN if any(value not in (None, "") for value in columns[name])]
    return [*(name for name in differ if name not in ("callbacks", "logger")), *shown]
