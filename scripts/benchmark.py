"""Measure the product, with nothing else running: python scripts/benchmark.py MEASURE [options]

training   tokens per second: the whole program, our model in a bare loop, other models in that loop
sampling   characters per second of one sequence, ours and other models
operators  milliseconds of single operations, ours and PyTorch's
target     seconds to reach a validation loss, ours and nanoGPT's recipe
length     training time and memory by sequence length
experts    speed of a mixture of experts and of dense feed-forwards
startup    from the shell to the first step, and to the message about a typo
sweep      overhead and memory per job, in a sweep of many short jobs
jobs       seconds per job of a sweep, by the number of jobs at the same time
head       the head of a large vocabulary with its loss, in slices and the plain way
stacked    several models in one program, or a process per core
compare    time and size of comparisons of 108 and 2,000 runs

training and sampling need the extra `bench`: pip install -e '.[bench]'.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for tests.compare.synthetic

from rich.console import Console
from rich.table import Table

Rows = list[dict[str, Any]]

# The limits with which PyTorch uses no more than an instruction set.
INSTRUCTION_SETS = {
    "amx": {"ONEDNN_MAX_CPU_ISA": "DEFAULT", "ATEN_CPU_CAPABILITY": "avx512"},
    "avx512_bf16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "ATEN_CPU_CAPABILITY": "avx512"},
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "ATEN_CPU_CAPABILITY": "avx512"},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
}
# The measures whose contestants have processes of their own.
IN_PROCESSES = ("training", "sampling", "operators", "length", "experts")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--size", choices=("mini", "small"), default="mini",
                        help="4 layers of 128, windows of 64; or 6 of 256, windows of 256")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contestant (default: 7)")
    parser.add_argument("--steps", type=int, default=100, help="steps per turn (default: 100)")
    parser.add_argument("--tokens", type=int, default=500, help="tokens per turn (default: 500)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME",
                        help="of training: only these contestants and the baseline")  # fmt: skip
    parser.add_argument("--isa", nargs="+", default=[], choices=INSTRUCTION_SETS,
                        help="once with each of these instruction sets of the processor")  # fmt: skip
    parser.add_argument("--loss", type=float, default=1.88, help="of target (default: 1.88)")
    parser.add_argument("--jobs", type=int, default=108, help="of the sweep (default: 108)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    arguments = parser.parse_args(argv)
    try:
        check(arguments.measure, arguments.isa)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        rows = measured(arguments)
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is missing: pip install -e '.[bench,report]'", file=sys.stderr)
        return 2
    print_rows(arguments.measure, rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def check(measure: str, instruction_sets: Sequence[str]) -> None:
    """Refuse instruction sets that would have no effect.

    Raises:
        ValueError: the processor lacks one, or the measure runs in this process, where PyTorch has read
            its limits already.
    """
    from modgpt.kernels.processor import ORDER, processor

    if instruction_sets and measure not in IN_PROCESSES:
        raise ValueError(f"--isa is for {', '.join(IN_PROCESSES)}, not for {measure}")
    for name in instruction_sets:
        if ORDER.index(name) > ORDER.index(processor()):
            raise ValueError(f"--isa {name}: this processor has {processor()} at best")


def measured(arguments: argparse.Namespace) -> Rows:
    """The rows of a measurement, once with each instruction set that was asked for.

    PyTorch reads its limits when it starts, and the contestants have processes of their own. Products in
    fp32 go through MKL, which these limits do not reduce.
    """
    rows = []
    for name in arguments.isa:
        os.environ |= INSTRUCTION_SETS[name]
        rows += [{"instruction set": name} | row for row in MEASURES[arguments.measure](arguments)]
    return rows or MEASURES[arguments.measure](arguments)


def measure_training(arguments: argparse.Namespace) -> Rows:
    from benchmarks.training import training

    return training(arguments.size, arguments.rounds, arguments.steps, arguments.only)


def measure_sampling(arguments: argparse.Namespace) -> Rows:
    from benchmarks.sampling import sampling

    return sampling(arguments.size, arguments.rounds, arguments.tokens)


def measure_operators(arguments: argparse.Namespace) -> Rows:
    from benchmarks.operators import operators

    return operators(arguments.size, arguments.rounds, arguments.steps)


def measure_target(arguments: argparse.Namespace) -> Rows:
    from benchmarks.target import target

    return target(arguments.loss, arguments.rounds)


def measure_length(arguments: argparse.Namespace) -> Rows:
    from benchmarks.scaling import length

    return length(arguments.rounds)


def measure_experts(arguments: argparse.Namespace) -> Rows:
    from benchmarks.scaling import experts

    return experts(arguments.size, arguments.rounds, arguments.steps)


def measure_startup(arguments: argparse.Namespace) -> Rows:
    from benchmarks.startup import startup

    return startup(arguments.rounds)


def measure_sweep(arguments: argparse.Namespace) -> Rows:
    from benchmarks.sweeping import per_job

    return [{"measured": name, "value": value} for name, value in per_job(arguments.jobs).items()]


def measure_jobs(arguments: argparse.Namespace) -> Rows:
    from benchmarks.sweeping import at_once

    return at_once(arguments.steps)


def measure_head(arguments: argparse.Namespace) -> Rows:
    from benchmarks.head import head

    return head(arguments.rounds)


def measure_stacked(arguments: argparse.Namespace) -> Rows:
    from benchmarks.stacked import stacked

    return stacked(arguments.rounds, arguments.steps)


def measure_compare(arguments: argparse.Namespace) -> Rows:
    from benchmarks.sweeping import comparison
    from tests.compare.synthetic import main as make

    return [comparison(lambda folder, n: make(str(folder), str(n)), runs) for runs in (108, 2000)]


MEASURES: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "training": measure_training,
    "sampling": measure_sampling,
    "operators": measure_operators,
    "target": measure_target,
    "length": measure_length,
    "experts": measure_experts,
    "startup": measure_startup,
    "sweep": measure_sweep,
    "jobs": measure_jobs,
    "head": measure_head,
    "stacked": measure_stacked,
    "compare": measure_compare,
}


def print_rows(title: str, rows: Rows) -> None:
    table = Table(title=title, header_style="bold")
    for name, value in rows[0].items():
        table.add_column(name, justify="left" if isinstance(value, str) else "right")
    for row in rows:
        table.add_row(*map(shown, row.values()))
    Console().print(table)


def shown(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
