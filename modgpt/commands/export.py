"""Write a run for transformers: modgpt export --run FOLDER --out FOLDER."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from modgpt.commands.flags import Parser


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description="Write a run as a folder that transformers opens with the same logits.")
    parser.add_argument("--run", required=True, type=Path, help="folder of a run, or a checkpoint file")
    parser.add_argument(
        "--out", required=True, type=Path, help="folder to write, which is not there yet"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    # Only now: --help and a wrong flag need not wait for torch.
    from modgpt.errors import UserError
    from modgpt.huggingface import require_transformers

    try:
        require_transformers()
        from modgpt.huggingface.export import export
        from modgpt.runs.folder import load_run

        architecture = export(load_run(arguments.run), arguments.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.out} ({architecture.model_type}), open it with:")
    print(f"  transformers.AutoModelForCausalLM.from_pretrained({str(arguments.out)!r})")
    return 0
