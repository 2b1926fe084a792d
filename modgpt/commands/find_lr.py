"""Learning-rate range test: modgpt find-lr ffn=moe."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modgpt.commands.ending import exit_code, tell
from modgpt.commands.flags import Parser
from modgpt.errors import TrainingError, UserError


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="modgpt find-lr",
        description="Train a composition for a few steps with a learning rate that grows exponentially "
        "(Smith 2017), and suggest an optimizer.lr. Writes find_lr.csv and find_lr.png, and no run. "
        "Schedule, budget, callbacks and loggers of the composition have no part in it.",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE",
                        help="a composition, as for modgpt train")  # fmt: skip
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--from", dest="first", type=float, default=1e-5, metavar="LR",
                        help="the rate of the first step (default: 1e-5)")  # fmt: skip
    parser.add_argument("--to", dest="last", type=float, default=1.0, metavar="LR",
                        help="the rate of the last step (default: 1)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("outputs/find_lr"), metavar="FOLDER",
                        help="default: outputs/find_lr")  # fmt: skip
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    return exit_code(lambda: find(parse_arguments(arguments)), UserError)


def find(arguments: argparse.Namespace) -> int:
    """Test the rates, write the files, print the suggestion; returns the exit code."""
    from modgpt.config.keys import command_keys
    from modgpt.config.overrides import check_overrides, parse

    check_overrides(arguments.overrides)
    for override in parse(arguments.overrides):
        if override.key_or_group in command_keys():
            raise UserError(f"{override.key_or_group} belongs to modgpt train: find-lr leaves no run")
    # Only now: --help and a wrong flag need not wait for the imports.
    from modgpt.compare.comparison import check_packages
    from modgpt.runs.saved import job_of

    job = job_of(arguments.overrides)
    check_packages()
    from modgpt.training.rate_range import measure_rates
    from modgpt.training.rate_report import write_rates

    try:
        test = measure_rates(job, arguments.first, arguments.last, arguments.steps)
    except TrainingError as error:
        tell(error)
        return 1
    try:
        written = write_rates(test, arguments.out)
    except OSError as error:
        raise UserError(f"cannot write to {arguments.out}: {error.strerror}") from error
    print(f"optimizer.lr={test.suggestion:.2g}  where the loss falls fastest")
    print(f"optimizer.lr={test.lowest:.2g}  where the loss is lowest, an upper bound")
    for path in written:
        print(path)
    return 0
