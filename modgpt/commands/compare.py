"""Compare trained runs: modgpt compare FOLDER [FOLDER …] [--best KEY] [--baseline FACTOR=OPTION]."""

from __future__ import annotations

import argparse
from pathlib import Path

from modgpt.commands.ending import exit_code
from modgpt.commands.flags import Parser
from modgpt.errors import UserError

WATCH_SECONDS = 30.0


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line of `modgpt compare`."""
    parser = Parser(
        prog="modgpt compare",
        description="Compare the runs below folders; writes results.csv, results.md and report.html.",
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER", help="folder of a sweep or of a run"
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
        "--baseline", action="append", default=[], metavar="FACTOR=OPTION",
        help="compare the other options of FACTOR with this one, such as ffn=moe (repeatable)",
    )  # fmt: skip
    parser.add_argument(
        "--same-within", type=positive, metavar="NATS",
        help="options whose loss differs by less count as the same (default: 0.02 nats per token)",
    )  # fmt: skip
    parser.add_argument(
        "--watch", nargs="?", const=str(WATCH_SECONDS), metavar="SECONDS",
        help="write the report again every SECONDS (default: 30) until no job runs any more",
    )  # fmt: skip
    parser.add_argument(
        "--plan", action="store_true",
        help="print how many seeds show differences of 0.02, 0.01 and 0.005; write nothing",
    )  # fmt: skip
    arguments = parser.parse_args(argv)
    if (after := arguments.watch) is not None:
        try:
            arguments.watch = positive(after)
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument --watch: {error}")
        except ValueError:  # `--watch FOLDER`
            arguments.folders.insert(0, Path(after))
            arguments.watch = WATCH_SECONDS
    if not arguments.folders:
        parser.error("the following arguments are required: FOLDER")
    for flag in ("out", "figures", "watch", "baseline"):
        if arguments.plan and getattr(arguments, flag):
            parser.error(f"argument --plan: has no use for --{flag}: it compares and writes nothing")
    return arguments


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
    from modgpt.compare.comparison import check_packages, compare

    check_packages()
    options = {"best": arguments.best, "same_within": arguments.same_within}
    if arguments.plan:
        from modgpt.compare.planning import print_plan

        print_plan(arguments.folders, **options)
        return 0
    options |= {"baselines": arguments.baseline, "figures": arguments.figures}
    if arguments.watch is not None:
        from modgpt.compare.watch import watch

        watch(arguments.folders, arguments.out, arguments.watch, **options)
    else:
        compare(arguments.folders, arguments.out, **options)
    return 0
