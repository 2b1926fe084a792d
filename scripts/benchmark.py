"""Measure the product: python scripts/benchmark.py {sweep,compare} [--json FILE].

sweep     overhead and memory per job, over many short ones
compare   time and size of comparisons of 108 and 2,000 runs
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests.sweep.synthetic makes up runs

from rich.console import Console
from rich.table import Table


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the product, with nothing else running.")
    parser.add_argument("what", choices=MEASURES)
    parser.add_argument("--jobs", type=int, default=108, help="of the sweep (default: 108)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    arguments = parser.parse_args(argv)
    results = MEASURES[arguments.what](arguments)
    for result in results:
        show(arguments.what, result)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def measure_sweep(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from modgpt.benchmark.sweeping import per_job

    return [per_job(arguments.jobs)]


def measure_compare(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from modgpt.benchmark.sweeping import comparison
    from tests.sweep.synthetic import main as make

    return [comparison(lambda folder, n: make(str(folder), str(n)), runs) for runs in (108, 2000)]


def show(title: str, result: dict[str, Any]) -> None:
    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in result.items():
        table.add_row(name, f"{value:,.3f}" if isinstance(value, float) else str(value))
    Console().print(table)


MEASURES = {"sweep": measure_sweep, "compare": measure_compare}

if __name__ == "__main__":
    sys.exit(main())
