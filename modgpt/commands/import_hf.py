"""Read a model of transformers: modgpt import --source FOLDER [--out FOLDER]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modgpt.commands.flags import Parser


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description="Turn a folder of a model of transformers into a run.")
    parser.add_argument("--source", required=True, type=Path, help="folder with config.json and weights")
    parser.add_argument(
        "--out", type=Path, help="folder to write, not there yet (default: outputs/imported/NAME)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    # Only now: --help and a wrong flag need not wait for torch.
    from modgpt.errors import UserError
    from modgpt.huggingface import require_transformers

    out = arguments.out or Path("outputs") / "imported" / arguments.source.resolve().name
    try:
        require_transformers()
        from modgpt.huggingface.importing import import_folder

        architecture = import_folder(arguments.source, out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{out} (experiment={architecture.preset}), go on with:")
    print(f"  modgpt generate --run {out}")
    print(f"  modgpt train init_from={out} data=text data.path=FILE")
    return 0
