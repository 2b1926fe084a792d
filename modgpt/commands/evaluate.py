"""Validation loss by context length: modgpt evaluate --run FOLDER … --lengths 64 256."""

from __future__ import annotations

import argparse
from pathlib import Path

from modgpt.commands.ending import exit_code
from modgpt.commands.flags import Parser, add_device, add_trust

VALIDATION, TEST = "validation", "test"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        description="Exact validation loss of trained runs by the length of the window and by the "
        "position in it: a table, loss_by_length and loss_by_position as CSV and PNG."
    )
    parser.add_argument("--run", nargs="+", required=True, type=Path, metavar="FOLDER",
                        help="of runs that were trained on the same text; those that are not finished "
                        "are skipped")  # fmt: skip
    parser.add_argument("--lengths", nargs="+", type=int, default=[64, 128, 256, 512, 1024], metavar="L",
                        help="tokens per window (default: 64 128 256 512 1024)")  # fmt: skip
    parser.add_argument("--split", choices=(VALIDATION, TEST), default=VALIDATION,
                        help="part of the corpus (default: validation); a test part is for the end, "
                        "when nothing is chosen by it any more")  # fmt: skip
    parser.add_argument("--sliding", action="store_true",
                        help="windows overlap by half, each target counted once")  # fmt: skip
    parser.add_argument("--stride", type=int, metavar="S",
                        help="windows begin S tokens apart: at least L-S tokens of context")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FOLDER",
                        help="default: the folder of the first run")  # fmt: skip
    add_device(parser)
    add_trust(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    return exit_code(lambda: evaluate(parse_arguments(argv)))


def evaluate(arguments: argparse.Namespace) -> int:
    """Measure, write the files, print the table; returns the exit code."""
    # Only now: --help and a wrong flag need not wait for the imports.
    from modgpt.compare.comparison import check_packages
    from modgpt.config.trust import trust_package
    from modgpt.console import Output
    from modgpt.errors import UserError
    from modgpt.inference.evaluation.evaluate import evaluate_runs
    from modgpt.inference.evaluation.runs import finished_folders

    for package in arguments.trust:
        trust_package(package)
    check_packages()
    from modgpt.inference.evaluation.report import write_report
    from modgpt.inference.evaluation.tables import length_table

    console = Output()
    folders = finished_folders(arguments.run)
    evaluations = evaluate_runs(
        folders,
        arguments.lengths,
        part=arguments.split,
        sliding=arguments.sliding,
        stride=arguments.stride,
        device=arguments.device,
        console=console,
    )
    out = arguments.out or folders[0]
    try:
        written = write_report(evaluations, out)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}") from error
    console.print(length_table(evaluations))
    for path in written:
        console.print(f"{path}", style="dim", highlight=False, soft_wrap=True)
    return 0
