"""The command `modgpt`: one word says which command of `modgpt.commands` runs."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from modgpt.commands.importing import ctrl_c_ends
from modgpt.errors import did_you_mean

# Command: its module in modgpt.commands, and one line of help.
COMMANDS = {
    "train": ("train", "train one composition, or with -m every combination"),
    "find-lr": ("find_lr", "suggest a learning rate for a composition"),
    "fit": ("fit", "show what a training needs: memory, time, communication"),
    "compare": ("compare", "compare trained runs: tables, intervals, plots, a page"),
    "query": ("query", "list runs: what was tried, with what result"),
    "generate": ("generate", "generate text from a trained run"),
    "play": ("play", "play with one or two runs on a page in your browser"),
    "evaluate": ("evaluate", "measure the validation loss by context length"),
    "export": ("export", "write a run for transformers"),
    "import": ("import_hf", "read a model of transformers as a run"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code, 2 for an unknown command."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    command, *rest = arguments
    if command in (
        "-sc",
        "--shell-completion",
    ):  # the shell asks, as `modgpt train -sc install=bash` says
        return complete(rest)
    if command not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(
            f"error: unknown command {command!r}{did_you_mean(command, COMMANDS)} (commands: {known})",
            file=sys.stderr,
        )
        return 2
    module, _ = COMMANDS[command]
    with ctrl_c_ends():
        run = import_module(f"modgpt.commands.{module}").main
    return run(rest)


def complete(query: list[str]) -> int:
    """Print what can follow on a command line that a shell has in `COMP_LINE`; returns the exit code."""
    program, _, typed = os.environ.get("COMP_LINE", "").partition(" ")
    command, space, rest = typed.lstrip().partition(" ")
    if not space:
        print(" ".join(COMMANDS))
    if not space or command != "train":  # the others take files, which the shell knows
        return 0
    os.environ["COMP_LINE"] = f"{program} {rest}"
    return main(["train", "--shell-completion", *query])


def usage() -> str:
    """The page of `modgpt --help`."""
    lines = [f"  {command:<10}{line}" for command, (_, line) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: modgpt COMMAND [arguments]",
            "",
            "An experiment suite for transformer components.",
            "",
            "commands:",
            *lines,
            "",
            "modgpt COMMAND --help explains one command.",
        ]
    )
