"""Write a run for transformers: modgpt export --run FOLDER --out FOLDER."""

from __future__ import annotations

import argparse
from pathlib import Path

from modgpt.commands.ending import exit_code
from modgpt.commands.flags import Parser, add_trust
from modgpt.errors import UserError


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description="Write a run as a folder that transformers opens with the same logits.")
    parser.add_argument("--run", required=True, type=Path, help="folder of a run, or a checkpoint file")
    parser.add_argument(
        "--out", required=True, type=Path, help="folder to write, which is not there yet"
    )
    add_trust(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    return exit_code(lambda: write(parse_arguments(argv)), UserError)


def write(arguments: argparse.Namespace) -> int:
    """Write the folder, and print how to open it; returns the exit code."""
    # Only now: --help and a wrong flag need not wait for torch.
    from modgpt.config.trust import trust_package
    from modgpt.huggingface import require_transformers

    for package in arguments.trust:
        trust_package(package)
    require_transformers()
    from modgpt.huggingface.export import export, tokenizer_class
    from modgpt.runs.folder import load_run

    run = load_run(arguments.run)
    architecture = export(run, arguments.out)
    print(f"{arguments.out} ({architecture.model_type}), open it with:")
    for opener in ("AutoModelForCausalLM", tokenizer_class(arguments.out, run.tokenizer)):
        print(f"  transformers.{opener}.from_pretrained({str(arguments.out)!r})")
    return 0
