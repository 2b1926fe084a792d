"""Text on the terminal: sample prompts, and an interactive mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Console

from modgpt.data.tokenizers.base import Tokenizer
from modgpt.errors import UserError

SAMPLE_PROMPTS = (
    "The quick brown fox",
    "Once upon a time",
    "In the beginning",
    "Hello world",
    "",
)
QUIT = ("quit", "exit", "q")

# Continues a prompt, piece by piece.
Continue = Callable[[str], Iterator[str]]


def known_part(prompt: str, tokenizer: Tokenizer, on_unknown: str) -> str:
    """The prompt, without the characters outside the vocabulary when they are to be skipped.

    Raises:
        UserError: there are such characters and `on_unknown` is `error`; names them.
    """
    unknown = tokenizer.unknown(prompt)
    if unknown and on_unknown == "error":
        names = ", ".join(f"{c!r}" for c in unknown)
        raise UserError(
            f"the vocabulary of {len(tokenizer)} {tokenizer.unit}s lacks {names}: leave them out, or "
            "give --on-unknown skip"
        )
    return "".join(c for c in prompt if c not in unknown)


def show(console: Console, prompt: str, continuation: Iterator[str]) -> None:
    """The prompt in bold, then its continuation as it is generated."""
    console.print(prompt, style="bold", end="", markup=False, highlight=False, soft_wrap=True)
    for piece in continuation:
        # Straight to the file: wrapping and markup are for whole texts, this comes by the character.
        console.file.write(piece)
        console.file.flush()
    console.file.write("\n")
    console.file.flush()


def show_samples(console: Console, continuation: Continue) -> None:
    """The five sample prompts and what the model makes of them."""
    for prompt in SAMPLE_PROMPTS:
        console.rule(repr(prompt) if prompt else "no prompt", style="dim")
        show(console, prompt, continuation(prompt))


def interact(console: Console, continuation: Continue) -> None:
    """Prompts from the keyboard until the user leaves."""
    import readline  # noqa: F401  (line editing and history for input())

    console.print("Type a prompt; clear clears the screen, quit leaves.", style="dim")
    while True:
        try:
            prompt = input("prompt> ")
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if prompt.strip().lower() in QUIT:
            return
        if prompt.strip().lower() == "clear":
            console.clear()
            continue
        try:
            show(console, prompt, continuation(prompt))
        except UserError as error:
            console.print(f"error: {error}", style="red", markup=False, highlight=False)
        except KeyboardInterrupt:  # enough of this one: back to the prompt
            console.print()
