"""Validation loss by context length: modgpt evaluate --run FOLDER … --lengths 64 256."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modgpt.commands.flags import Parser


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        description="Exact validation loss of trained runs by the length of the window and by the "
        "position in it: a table, loss_by_length and loss_by_position as CSV and PNG."
    )
    parser.add_argument("--run", nargs="+", required=True, type=Path, metavar="FOLDER",
                        help="of runs that were trained on the same text")  # fmt: skip
    parser.add_argument("--lengths", nargs="+", type=int, default=[64, 128, 256, 512, 1024], metavar="L",
                        help="tokens per window (default: 64 128 256 512 1024)")  # fmt: skip
    parser.add_argument("--sliding", action="store_true",
                        help="windows overlap by half, each target counted once")  # fmt: skip
    parser.add_argument("--stride", type=int, metavar="S",
                        help="windows begin S tokens apart: at least L-S tokens of context")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: the first run's folder")
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, mps (default: the fastest there is)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    # Only now: --help and a wrong flag need not wait for the imports.
    from rich.console import Console

    from modgpt.compare.comparison import check_packages
    from modgpt.errors import UserError
    from modgpt.inference.evaluation import evaluate_runs

    console = Console()
    try:
        check_packages()
        from modgpt.inference.evaluation_report import length_table, write_report

        evaluations = evaluate_runs(
            arguments.run,
            arguments.lengths,
            sliding=arguments.sliding,
            stride=arguments.stride,
            device=arguments.device,
            console=console,
        )
        out = arguments.out or arguments.run[0]
        try:
            written = write_report(evaluations, out)
        except OSError as error:
            raise UserError(f"cannot write to {out}: {error.strerror}") from error
        console.print(length_table(evaluations))
        for path in written:
            console.print(f"{path}", style="dim", highlight=False, soft_wrap=True)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
