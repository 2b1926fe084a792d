"""Every command line of the documentation is one that the program accepts; nothing is run."""

from __future__ import annotations

import argparse
import runpy
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
from hydra.core.override_parser.types import Glob

from modgpt.cli import COMMANDS
from modgpt.commands.train import by_hydra, read
from modgpt.config.compose import compose_job
from modgpt.config.overrides import check_overrides, parse
from modgpt.config.search import options
from tests.docs.markdown import BLOCK, PAGES, ROOT, command_lines, files

LINES = [
    pytest.param(page, words, id=f"{page.relative_to(ROOT)}: {' '.join(words)}")
    for page in PAGES
    for words in command_lines(page)
]
# Programs that are not ours.
OTHERS = {
    "pip",
    "source",
    "export",
    "tensorboard",
    "git",
    "cd",
    "ruff",
    "pyright",
    "mkdocs",
    "python3",
    ".venv/bin/pip",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_shell_can_read_every_command(page: Path):
    blocks = "".join(text for language, text in BLOCK.findall(page.read_text()) if language == "bash")
    read = subprocess.run(["bash", "-n"], input=blocks, text=True, capture_output=True)
    assert not read.stderr


@pytest.mark.parametrize(("page", "words"), LINES)
def test_command_is_accepted(
    page: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    if words[0] in OTHERS:
        return
    for name, text in files(page).items():  # commands may use them
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modgpt.config.search._added", [])
    monkeypatch.setattr("modgpt.config.trust._trusted", [])
    arguments = command(words)
    if arguments[0] == "train":
        return composes(arguments[1:])
    if arguments[0] == "pytest":
        return paths_exist(arguments[1:])
    if arguments[0].startswith("benchmarks."):
        module = import_module(arguments[0])
        if hasattr(module, "__path__"):  # a package: Python runs its __main__
            module = import_module(f"{arguments[0]}.__main__")
        monkeypatch.setattr(sys, "argv", arguments)
        return parses(module.main, monkeypatch)
    program = arguments[0]
    if program in COMMANDS:
        if len(arguments) == 1:
            return  # the name of a command in a sentence
        module = import_module(f"modgpt.commands.{COMMANDS[program][0]}")
        return parses(lambda: module.main(arguments[1:]), monkeypatch)
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.syspath_prepend(str((ROOT / program).parent))
    parses(lambda: runpy.run_path(str(ROOT / program), run_name="__main__"), monkeypatch)


def command(words: list[str]) -> list[str]:
    """Return `compare …` for `modgpt compare …` and its script; other scripts by their path."""
    if words[0] == "modgpt":
        return words[1:] or ["--help"]
    assert words[0] in ("python", ".venv/bin/python"), f"what is {words[0]}?"
    if words[1] == "-m":
        return words[2:]
    assert (ROOT / words[1]).exists(), f"no file {words[1]}"
    stem = Path(words[1]).stem.removesuffix("_hf")
    of_package = words[1].startswith("scripts/") and stem in COMMANDS
    return [stem if of_package else words[1], *words[2:]]


def composes(arguments: list[str]) -> None:
    """Compose the job; of a sweep, the first one, and check the other values of each override."""
    line = read(arguments)
    listed = [values(override) for override in line.overrides]
    if any(len(each) > 1 for each in listed):
        assert by_hydra(line), "lists of values need -m, or a sweep that is several jobs by itself"
    compose_job([each[0] for each in listed])
    check_overrides([value for each in listed for value in each[1:]])


def values(text: str) -> list[str]:
    """Return an override for every value of a sweep's override; of an interval, for its lower end."""
    (override,) = parse([text])
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [text]
    if isinstance(override.value(), Glob):
        return [f"{key}={option}" for option in options(key)]
    if not override.is_discrete_sweep():
        return [f"{key}={override.value().start}"]  # type: ignore[union-attr]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def paths_exist(arguments: list[str]) -> None:
    for argument in arguments:
        if argument.startswith("tests/"):
            assert (ROOT / argument.partition("::")[0]).exists(), f"no {argument}"


class Accepted(Exception):
    """The parser took the arguments."""


def parses(run: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a program as far as its parser, which has to take the arguments."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(self: argparse.ArgumentParser, *arguments, **keywords):
        parse_args(self, *arguments, **keywords)
        raise Accepted

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", stop)
    with pytest.raises(Accepted):
        run()
