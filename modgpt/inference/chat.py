"""The interactive mode: prompts from the keyboard, and settings that can be changed between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from rich.console import Console

from modgpt.errors import UserError, did_you_mean
from modgpt.inference.sampling import Sampling
from modgpt.inference.terminal import show
from modgpt.text import visible

QUIT = ("quit", "exit", "q", "/quit", "/exit", "/q")
CLEAR = ("clear", "/clear")


@dataclass(frozen=True)
class Setting:
    """A command that changes a field of `Sampling`: how to read a value, an example, a line of help."""

    field: str
    read: Callable[[str], float]
    example: str
    help: str


SETTINGS = {
    "temperature": Setting("temperature", float, "0.7", "0 is greedy, above 1 more random"),
    "length": Setting("max_new_tokens", int, "200", "tokens of a continuation"),
    "top-k": Setting("top_k", int, "20", "sample among the k most probable tokens; off for all"),
    "top-p": Setting("top_p", float, "0.9", "sample among the most probable share p; off for all"),
    "seed": Setting("seed", int, "1", "makes the texts repeatable; off for random ones"),
}
OPTIONAL = ("top_k", "top_p", "seed")  # fields that `off` removes
HINT = "Type a prompt. /help lists the settings, /quit leaves."

# Continues a prompt with the settings given.
Continue = Callable[[str, Sampling], Iterator[str]]


def interact(console: Console, sampling: Sampling, continuation: Continue) -> None:
    """Read prompts and settings from the keyboard until the user leaves."""
    with suppress(ImportError):
        import readline  # noqa: F401  (line editing and history for input())

    console.print(HINT, style="dim", highlight=False)
    while True:
        try:
            line = input("prompt> ")
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        word = line.strip().lower()
        if word in QUIT:
            return
        try:
            if word in CLEAR:
                console.clear()
            elif word in ("/help", "/"):
                console.print(help_page(sampling), style="dim", markup=False, highlight=False)
            elif line.startswith("/") and not line.startswith("//"):
                sampling = changed(sampling, line)
                console.print(settings_line(sampling), style="dim", markup=False, highlight=False)
            else:
                prompt = line.removeprefix("/") if line.startswith("//") else line
                show(console, prompt, continuation(prompt, sampling))
                sampling = sampling.next_seed()
        except ValueError as error:
            console.print(f"error: {visible(error)}", style="red", markup=False, highlight=False)
        except KeyboardInterrupt:  # enough of this one: back to the prompt
            console.print()


def changed(sampling: Sampling, line: str) -> Sampling:
    """The settings after a command such as `/temperature 0.7`.

    Raises:
        UserError: no such command, no value, or a value out of its range.
    """
    name, _, value = line.strip().removeprefix("/").partition(" ")
    name, value = name.lower(), value.strip()
    if name not in SETTINGS:
        known = ", ".join(f"/{command}" for command in SETTINGS)
        raise UserError(
            f"unknown command /{name}{did_you_mean(name, SETTINGS)}: there are {known}, /clear, "
            "/help and /quit (a prompt may begin with a slash: type it twice)"
        )
    setting = SETTINGS[name]
    optional = setting.field in OPTIONAL
    if value == "off" and optional:
        return replace(sampling, **{setting.field: None})
    try:
        number = setting.read(value)
    except ValueError:
        kind = "whole number" if setting.read is int else "number"
        raise UserError(
            f"/{name} needs a {kind}{' or off' if optional else ''}, got {value!r}: /{name} "
            f"{setting.example}"
        ) from None
    return replace(sampling, **{setting.field: number})


def settings_line(sampling: Sampling) -> str:
    """All settings in one line, as the commands name them."""
    values = {name: getattr(sampling, setting.field) for name, setting in SETTINGS.items()}
    return "  ".join(f"{name} {'off' if value is None else value}" for name, value in values.items())


def command_help() -> dict[str, str]:
    """The commands, each with an example value, and their lines of help."""
    commands = {f"/{name} {setting.example}": setting.help for name, setting in SETTINGS.items()}
    return commands | {
        "/help": "lists the commands and the current settings",
        "/clear": "clears the screen",
        "/quit": "leaves, as does Ctrl-D",
    }


def help_page(sampling: Sampling) -> str:
    """All commands with a line each, and the current settings."""
    lines = [f"{command:<20}{text}" for command, text in command_help().items()]
    return "\n".join([*lines, f"now: {settings_line(sampling)}"])
