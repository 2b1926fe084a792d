"""Generate text from a trained run: modgpt generate [--run FOLDER] [--prompt TEXT …]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from modgpt.commands.flags import Parser


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(description="Generate text from a trained run.")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", type=Path, help="folder of a run; default: the newest finished one")
    source.add_argument("--checkpoint", type=Path, help="one checkpoint file")
    parser.add_argument("--prompt", nargs="+", action="extend", help="text to continue; several allowed")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (default: 0.8)")
    parser.add_argument("--top-k", type=int, help="sample among the k most probable characters")
    parser.add_argument("--top-p", type=float, help="sample among the most probable share p")
    parser.add_argument("--max-new-tokens", type=int, default=500, help="default: 500")
    parser.add_argument("--num-samples", type=int, default=1, help="continuations per prompt")
    parser.add_argument("--seed", type=int, help="makes the text repeatable")
    parser.add_argument("--on-unknown", choices=["error", "skip"], default="error",
                        help="characters outside the vocabulary (default: error)")  # fmt: skip
    parser.add_argument("--context", type=int, help="characters the model keeps in mind; 0: no limit "
                        "(default: what it was trained for)")  # fmt: skip
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, mps (default: the fastest there is)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    # Only now: --help and a wrong flag need not wait for torch.
    from rich.console import Console

    from modgpt.errors import UserError
    from modgpt.inference.chat import interact, known_part, show, show_samples
    from modgpt.inference.generation import check_sampling, pick_device, stream_text
    from modgpt.runs.folder import load_run, newest_finished

    console = Console()
    seed = arguments.seed

    def continuation(prompt: str, on_unknown: str = arguments.on_unknown) -> Iterator[str]:
        nonlocal seed
        text = known_part(prompt, run.tokenizer, on_unknown)
        pieces = stream_text(
            run.model,
            run.tokenizer,
            text,
            max_new_tokens=arguments.max_new_tokens,
            temperature=arguments.temperature,
            top_k=arguments.top_k,
            top_p=arguments.top_p,
            seed=seed,
            context="auto" if arguments.context is None else arguments.context or None,
        )
        if seed is not None:
            seed += 1  # the next sample is another one, and as repeatable
        return pieces

    try:
        check_sampling(arguments.max_new_tokens, arguments.temperature, arguments.top_k, arguments.top_p)
        if arguments.num_samples < 1:
            raise UserError(f"--num-samples must be at least 1, got {arguments.num_samples}")
        source = arguments.checkpoint or arguments.run or newest_finished(Path("outputs"))
        run = load_run(source)
        run.model.to(pick_device(arguments.device))
        prompts = [known_part(p, run.tokenizer, arguments.on_unknown) for p in arguments.prompt or []]
        if not prompts:
            console.print(f"{source}", style="dim", highlight=False)
            # The user has not typed these: what the vocabulary lacks of them is left out.
            show_samples(console, lambda prompt: continuation(prompt, "skip"))
            if sys.stdin.isatty():
                interact(console, continuation)
        for prompt in prompts:
            for n in range(arguments.num_samples):
                if n or prompt != prompts[0]:
                    console.rule(style="dim")
                show(console, prompt, continuation(prompt))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print()
    return 0
