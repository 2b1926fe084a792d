"""Commands: the list of them, and the flags of one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from unittest.mock import patch

from modgpt.cli import COMMANDS
from modgpt.inference.chat import command_help
from regions.markdown import table


def commands() -> str:
    """Return the table of commands."""
    rows = [[f"`modgpt {command}`", line] for command, (_, line) in COMMANDS.items()]
    return table(("command", "what it does"), rows)


def flags(command: str) -> str:
    """Return the table of a command's flags."""
    module = import_module(f"modgpt.commands.{COMMANDS[command][0]}")
    rows = []
    for action in parser_of(module.parse_arguments)._actions:
        if action.dest != "help":
            name = ", ".join(action.option_strings) or str(action.metavar or action.dest)
            rows.append([f"`{name}`", shown(action.help)])
    return table(("flag", "meaning"), rows)


def chat_commands() -> str:
    """Return the table of the commands of the interactive mode."""
    rows = [[f"`{command}`", text] for command, text in command_help().items()]
    return table(("command", "what it does"), rows)


def shown(text: str | None) -> str:
    return (text or "").replace("%%", "%")


def parser_of(parse) -> argparse.ArgumentParser:
    """Return the parser that a function builds and calls."""
    with stopped_at_parsing() as seen, suppress(Parsed):
        parse([])
    return seen[0]


class Parsed(Exception):
    """A parser has been reached."""


@contextmanager
def stopped_at_parsing() -> Iterator[list[argparse.ArgumentParser]]:
    """Stop where a parser is first asked to parse, and keep it."""
    seen: list[argparse.ArgumentParser] = []

    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> argparse.Namespace:
        seen.append(parser)
        raise Parsed

    methods = ("parse_args", "parse_intermixed_args")
    with patch.multiple(argparse.ArgumentParser, **dict.fromkeys(methods, stop)):
        yield seen
