"""Generated text on a terminal or in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

from rich.console import Console

from modgpt.data.tokenizers.base import Tokenizer, listed
from modgpt.errors import UserError
from modgpt.text import escaped

SAMPLE_PROMPTS = (
    "The quick brown fox",
    "Once upon a time",
    "In the beginning",
    "Hello world",
    "",
)

# Continues a prompt, piece by piece.
Continue = Callable[[str], Iterator[str]]


def for_terminal(text: str, encoding: str = "utf-8") -> str:
    """The text with escapes like `\\x1b` for what a terminal would obey, or its encoding lacks.

    Newlines and tabs stay as they are.
    """
    return escaped(text, keep="\n\t").encode(encoding, "backslashreplace").decode(encoding)


def known_part(prompt: str, tokenizer: Tokenizer, on_unknown: str) -> str:
    """The prompt; without the characters that the tokenizer lacks, where they are to be skipped.

    Raises:
        UserError: there are such characters and `on_unknown` is `error`, or no others.
    """
    unknown = tokenizer.unknown(prompt)
    if not unknown:
        return prompt
    lacks = f"the vocabulary of {len(tokenizer)} {tokenizer.unit}s lacks {listed(unknown)}"
    known = "".join(c for c in prompt if c not in unknown)
    if not known.strip():
        raise UserError(f"{lacks}: the prompt {prompt!r} has nothing else, write it in other characters")
    if on_unknown == "error":
        raise UserError(f"{lacks}: leave them out, or give --on-unknown skip")
    return known


def show(console: Console, prompt: str, continuation: Iterator[str]) -> None:
    """Write the prompt in bold, then its continuation as it is generated."""
    encoding = console.encoding
    console.print(
        for_terminal(prompt, encoding),
        style="bold",
        end="",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for piece in continuation:
        # Straight to the file: wrapping and markup are for whole texts, this comes by the character.
        console.file.write(for_terminal(piece, encoding))
        console.file.flush()
    console.file.write("\n")
    console.file.flush()


def show_samples(console: Console, tokenizer: Tokenizer, continuation: Continue) -> None:
    """Write the five sample prompts and how the model continues them.

    The user has not typed these prompts: characters that the vocabulary lacks are left out.
    """
    for prompt in SAMPLE_PROMPTS:
        unknown = tokenizer.unknown(prompt)
        known = "".join(c for c in prompt if c not in unknown)
        console.rule(repr(prompt) if prompt else "no prompt", style="dim")
        show(console, known, continuation(known))


def tell_skipped(prompts: list[str], known: list[str]) -> None:
    """Say on stderr which characters were left out of the prompts."""
    left_out = [c for prompt, kept in zip(prompts, known, strict=True) for c in prompt if c not in kept]
    if left_out:
        print(f"note: left out {listed(dict.fromkeys(left_out))}", file=sys.stderr)
