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
    parser.add_argument(
        "--same-within", type=positive, metavar="NATS",
        help="options whose loss differs by less count as the same (default: 0.02 nats per token)",
    )  # fmt: skip
    return parser.parse_args(argv)


def positive(text: str) -> float:
    """A number above zero."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return value


def main(argv: list[str] | None = None) -> int:
    return exit_code(lambda: run(parse_arguments(argv)), UserError)


def run(arguments: argparse.Namespace) -> int:
    """Compare the runs, write the files, print the tables; returns the exit code."""
    # Only now: --help and a wrong flag need not wait for the packages.
    from modgpt.compare.comparison import compare

    compare(
        arguments.folders,
        arguments.out,
        figures=arguments.figures,
        best=arguments.best,
        same_within=arguments.same_within,
    )
    return 0
