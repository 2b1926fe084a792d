"""Read a model of transformers: modgpt import --source FOLDER [--out FOLDER]."""

from __future__ import annotations

import argparse
from pathlib import Path

from modgpt.commands.ending import exit_code
from modgpt.commands.flags import Parser
from modgpt.errors import UserError


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description="Turn a folder of a model of transformers into a run.")
    parser.add_argument("--source", required=True, type=Path, help="folder with config.json and weights")
    parser.add_argument(
        "--out", type=Path, help="folder to write, not there yet (default: outputs/imported/NAME)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    return exit_code(lambda: read(parse_arguments(argv)), UserError)


def read(arguments: argparse.Namespace) -> int:
    """Read the model into a run, and print how to go on; returns the exit code."""
    # Only now: --help and a wrong flag need not wait for torch.
    from modgpt.huggingface import require_transformers

    out = arguments.out or Path("outputs") / "imported" / arguments.source.resolve().name
    require_transformers()
    from modgpt.huggingface.importing import import_folder

    architecture = import_folder(arguments.source, out)
    print(f"{out} (experiment={architecture.preset}), go on with:")
    print(f"  modgpt generate --run {out}")
    print(f"  modgpt train init_from={out} data=text data.path=FILE")
    return 0
