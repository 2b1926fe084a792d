"""Compare trained runs: modgpt compare FOLDER [FOLDER …] [--best KEY] [--figures png]."""

from __future__ import annotations

import argparse
from pathlib import Path

from modgpt.commands.ending import exit_code
from modgpt.commands.flags import Parser
from modgpt.errors import UserError


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of `modgpt compare`."""
    parser = Parser(
        prog="modgpt compare",
        description="Compare the runs below folders; writes results.csv, results.md and report.html.",
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="folder of a sweep or of a run"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where to write (default: the first folder)"
    )
    parser.add_argument(
        "--figures", choices=("png", "svg", "pdf"), help="also write the figures, in this format"
    )
    parser.add_argument(
        "--best", action="append", default=[], metavar="KEY",
        help="compare every combination with its best value of KEY, such as optimizer.lr (repeatable)",
    )  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    return exit_code(lambda: run(parse_arguments(argv)), UserError)


def run(arguments: argparse.Namespace) -> int:
    """Compare the runs, write the files, print the tables; returns the exit code."""
    # Only now: --help and a wrong flag need not wait for the packages.
    from modgpt.compare.comparison import compare

    compare(arguments.folders, arguments.out, figures=arguments.figures, best=arguments.best)
    return 0
