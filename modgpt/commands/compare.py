"""Compare trained runs: modgpt compare FOLDER [FOLDER …] [--best KEY] [--figures png]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modgpt.commands.flags import Parser


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        description="Turn the runs below some folders into results.csv, results.md and report.html."
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="of a sweep, or of a run"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: the first folder")
    parser.add_argument(
        "--figures", choices=("png", "svg", "pdf"), help="also draw the figures, in this format"
    )
    parser.add_argument(
        "--best", action="append", default=[], metavar="KEY",
        help="compare every combination with its best value of KEY, such as optimizer.lr (repeatable)",
    )  # fmt: skip
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    # Only now: --help and a wrong flag need not wait for the imports.
    from modgpt.compare.comparison import compare
    from modgpt.errors import UserError

    try:
        compare(arguments.folders, arguments.out, figures=arguments.figures, best=arguments.best)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
