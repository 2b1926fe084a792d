"""Generate text from a trained run: modgpt generate [--run FOLDER] [--prompt TEXT …]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from modgpt.commands.ending import exit_code
from modgpt.commands.flags import Parser, add_device, add_trust

if TYPE_CHECKING:
    from modgpt.inference.sampling import Sampling


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        description="Generate text from a trained run. Without a prompt: five samples, then your own "
        "prompts when it runs in a terminal."
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", type=Path, help="folder of a run (default: the newest finished one)")
    source.add_argument("--checkpoint", type=Path, help="one checkpoint file")
    parser.add_argument("--prompt", nargs="+", action="extend", help="text to continue; several allowed")
    parser.add_argument("-i", "--interactive", action="store_true",
                        help="read prompts from the keyboard, without the samples; /help lists the "
                        "settings that can be changed there")  # fmt: skip
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (default: 0.8)")
    parser.add_argument("--top-k", type=int, help="sample among the k most probable tokens")
    parser.add_argument("--top-p", type=float, help="sample among the most probable share p")
    parser.add_argument("--max-new-tokens", type=int, default=500, help="default: 500")
    parser.add_argument("--num-samples", type=int, default=1, help="continuations per prompt")
    parser.add_argument("--seed", type=int, help="makes the text repeatable")
    parser.add_argument("--on-unknown", choices=["error", "skip"], default="error",
                        help="characters outside the vocabulary (default: error)")  # fmt: skip
    parser.add_argument("--context", type=int, help="tokens that the model keeps in mind; 0: no limit "
                        "(default: what it was trained for)")  # fmt: skip
    add_device(parser)
    add_trust(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    return exit_code(lambda: generate(parse_arguments(argv)))


def generate(arguments: argparse.Namespace) -> int:
    """Load the run, then write texts; returns the exit code."""
    # Only now: --help and a wrong flag need not wait for torch.
    from modgpt.config.trust import trust_package
    from modgpt.console import Output
    from modgpt.errors import UserError
    from modgpt.inference.chat import interact
    from modgpt.inference.context import context_limit
    from modgpt.inference.device import pick_device
    from modgpt.inference.generation import stream_text
    from modgpt.inference.terminal import known_part, show, show_samples, tell_skipped
    from modgpt.runs.folder import load_run, newest_finished

    for package in arguments.trust:
        trust_package(package)
    if arguments.num_samples < 1:
        raise UserError(f"--num-samples must be at least 1, got {arguments.num_samples}")
    sampling = sampling_of(arguments)
    device = pick_device(arguments.device)
    source = arguments.checkpoint or arguments.run or newest_finished(Path("outputs"))
    run = load_run(source)
    context_limit(run.model, sampling.context)
    run.model.to(device)
    console = Output()

    def continuation(prompt: str, sampling: Sampling) -> Iterator[str]:
        text = known_part(prompt, run.tokenizer, arguments.on_unknown)
        return stream_text(run.model, run.tokenizer, text, **vars(sampling))

    def following(prompt: str) -> Iterator[str]:
        nonlocal sampling
        pieces = continuation(prompt, sampling)
        sampling = sampling.next_seed()
        return pieces

    typed = arguments.prompt or []
    prompts = [known_part(prompt, run.tokenizer, arguments.on_unknown) for prompt in typed]
    tell_skipped(typed, prompts)
    for n, prompt in enumerate(p for p in prompts for _ in range(arguments.num_samples)):
        if n:
            console.rule(style="dim")
        show(console, prompt, following(prompt))
    if not prompts:
        console.print(f"{source}", style="dim", markup=False, highlight=False, soft_wrap=True)
        if not arguments.interactive:
            show_samples(console, run.tokenizer, following)
    if arguments.interactive or (not prompts and sys.stdin.isatty()):
        interact(console, sampling, continuation)
    return 0


def sampling_of(arguments: argparse.Namespace) -> Sampling:
    """The settings that the flags name.

    Raises:
        UserError: one is out of its range.
    """
    from modgpt.errors import UserError
    from modgpt.inference.sampling import Sampling

    if arguments.context is not None and arguments.context < 0:
        raise UserError(f"--context must be at least 0 (no limit), got {arguments.context}")
    return Sampling(
        max_new_tokens=arguments.max_new_tokens,
        temperature=arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        seed=arguments.seed,
        context="auto" if arguments.context is None else arguments.context or None,
    )
