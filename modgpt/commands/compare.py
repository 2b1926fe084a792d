"""Compare trained runs: modgpt compare FOLDER [FOLDER …] [--best KEY] [--figures png]."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from modgpt.commands.flags import Parser


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
    """Run the command; returns its exit code."""
    arguments = parse_arguments(argv)
    # Imported here: --help and a wrong flag need not wait for the packages.
    from modgpt.compare.comparison import compare
    from modgpt.compare.escaping import visible
    from modgpt.errors import UserError

    try:
        compare(arguments.folders, arguments.out, figures=arguments.figures, best=arguments.best)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {visible(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough. Python would complain when it closes the output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
