"""Plan before spending: modgpt fit model.n_layers=32 --gpu h100 --gpus 8."""

from __future__ import annotations

import argparse
import json
import math
import sys

from modgpt.commands.ending import exit_code
from modgpt.commands.flags import Parser
from modgpt.errors import UserError


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="modgpt fit",
        description="Show what a training needs before it runs: memory per device by part and strategy, "
        "the largest batch, the time, the communication, and what to change where it does not fit. "
        "Nothing is trained, and the model takes no memory.",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE",
                        help="a composition, as for modgpt train")  # fmt: skip
    parser.add_argument("--gpu", default="h100", metavar="NAME",
                        help="such as a100 or l4: gives memory and peak (default: h100)")  # fmt: skip
    parser.add_argument("--gpu-memory", type=float, metavar="GB", help="of each, in place of the GPU's")
    parser.add_argument("--gpus", type=int, metavar="N", help="default: trainer.devices, or 1")
    parser.add_argument("--peak-tflops", type=float, metavar="X",
                        help="of each, in place of the GPU's dense bf16 peak")  # fmt: skip
    parser.add_argument("--mfu", type=float, default=0.4, metavar="X",
                        help="share of the peak that the training reaches (default: 0.4)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON, in bytes and seconds")
    return parser.parse_intermixed_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    return exit_code(lambda: show(parse_arguments(arguments)), UserError)


def show(arguments: argparse.Namespace) -> int:
    """Plan, print; returns the exit code."""
    check_flags(arguments)
    from modgpt.config.keys import command_keys
    from modgpt.config.overrides import check_overrides, parse

    check_overrides(arguments.overrides)
    for override in parse(arguments.overrides):
        if override.key_or_group in command_keys():
            raise UserError(f"{override.key_or_group} belongs to modgpt train: fit leaves no run")
    # Only now: --help and a wrong flag need not wait for the imports.
    from modgpt.planning.devices import device_named
    from modgpt.runs.saved import job_of

    device = device_named(arguments.gpu)
    job = job_of(arguments.overrides)
    from modgpt.planning.plan import Hardware, plan_of
    from modgpt.planning.report import as_json, print_plan

    gpus = arguments.gpus
    if gpus is None:
        given = job.config.trainer.get("devices", 1)
        gpus = given if isinstance(given, int) and given >= 1 else 1
    memory, peak = arguments.gpu_memory, arguments.peak_tflops
    hardware = Hardware(
        gpus=gpus,
        memory=device.memory if memory is None else memory * 1e9,
        peak=device.peak if peak is None else peak * 1e12,
        mfu=arguments.mfu,
        name=arguments.gpu if peak is None else "--peak-tflops",
    )
    plan = plan_of(job, hardware)
    if arguments.json:
        print(json.dumps(as_json(plan), indent=2))
    else:
        print_plan(plan)
    return 0


def check_flags(arguments: argparse.Namespace) -> None:
    """Refuse numbers out of their range.

    Raises:
        UserError: names the flag.
    """
    if arguments.gpus is not None and arguments.gpus < 1:
        raise UserError(f"--gpus must be at least 1, got {arguments.gpus}")
    for flag, value in (
        ("--gpu-memory", arguments.gpu_memory),
        ("--peak-tflops", arguments.peak_tflops),
    ):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UserError(f"{flag} must be a positive number, got {value:g}")
    if not 0 < arguments.mfu <= 1:
        raise UserError(f"--mfu must lie in (0, 1], got {arguments.mfu:g}")
