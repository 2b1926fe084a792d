"""`modgpt train --help`: a page made from the configs and their comments."""

from __future__ import annotations

import re

from rich.console import Console
from rich.table import Table

from modgpt.config.compose import compose_job
from modgpt.config.keys import KEYS, PARTS
from modgpt.config.search import CONFIG_DIR, groups, option_text, options
from modgpt.console import Output
from modgpt.errors import UserError, did_you_mean

USAGE = """\
usage: modgpt train [GROUP=OPTION …] [KEY=VALUE …] [-m] [flags]

Train a GPT composed of parts. Each group below is a part; each option can be swapped in.

  modgpt train                                       the default composition
  modgpt train ffn=moe pos=alibi                     other parts
  modgpt train attention=local_window attention.window=16
                                                     an option and its key
  modgpt train experiment=nanogpt_cpu                a whole recipe
  modgpt train resume=outputs/runs/NAME              go on with a run
  modgpt train -m ffn=swiglu,moe seed=1,2,3          a sweep: every combination
  modgpt train -m 'attention=glob(*)'                every option of a group
  modgpt train sweep=components                      a prepared sweep
"""
FLAGS = """\
  -m, --multirun        train every combination of comma-separated values
  --help [GROUP]        this page, or the options and keys of one group
  --cfg job             print the composed configuration and stop
  --resolved            print the complete configuration, with what is derived, and stop
  --config-dir FOLDER   search a folder of yours for options as well
  --trust PACKAGE       let a saved run name classes of this package of yours
  --shell-completion install=bash|fish|zsh
"""
OTHER = (
    "modgpt compare, generate, evaluate, export and import read what was trained; each has a --help. "
    "--hydra-help lists Hydra's own flags."
)


def show_help(names: list[str]) -> int:
    """Print the page, or the pages of some groups; the exit code.

    `ffn=moe` asks for the page of `ffn`. Other settings of the command line ask for nothing.

    Args:
        names: groups; none for the first page.

    Raises:
        UserError: there is no such group.
    """
    console = Output(highlight=False, soft_wrap=False)
    asked = [name for name in names if "=" not in name or name.partition("=")[0] in groups()]
    asked = [name.partition("=")[0] for name in asked]
    for group in asked:
        if group not in groups():
            raise UserError(
                f"no group {group!r}{did_you_mean(group, groups())} (groups: {', '.join(groups())})"
            )
    if asked:
        for group in dict.fromkeys(asked):
            show_group(console, group)
        return 0
    console.print(USAGE, markup=False)
    show_groups(console)
    show_keys(console)
    console.print("[bold]flags[/bold]")
    console.print(FLAGS, markup=False)
    console.print(OTHER, markup=False)
    return 0


def show_groups(console: Console) -> None:
    """The groups with their options, the parts of the model first, the default option marked."""
    chosen = compose_job().choices
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for group in ordered_groups():
        names = [f"[bold]{o}[/bold]*" if o == chosen.get(group) else o for o in options(group)]
        table.add_row(group, "  ".join(names))
    console.print("[bold]groups[/bold] (* is the default)")
    console.print(table)
    console.print("  modgpt train --help attention explains one group.\n", markup=False)


def ordered_groups() -> list[str]:
    """All groups, in the order of the table of keys; groups of a user's come last."""
    known = [name for name, key in KEYS.items() if key.type is None]
    return [*(g for g in known if g in groups()), *(g for g in groups() if g not in known)]


def show_keys(console: Console) -> None:
    """The plain keys with their defaults, explained by the comments of `train.yaml`."""
    console.print("[bold]keys[/bold]")
    text = (CONFIG_DIR / "train.yaml").read_text(encoding="utf-8")
    console.print(
        key_table([row for row in explained(text) if row[0] in KEYS and row[0] != "job_folder"])
    )
    console.print()


def show_group(console: Console, group: str) -> None:
    """One group: what each option is, and its keys with defaults and explanations."""
    part = " (a part of the model)" if group in PARTS else ""
    console.print(f"[bold]{group}[/bold]{part}\n")
    for option in options(group):
        text = option_text(group, option)
        console.print(f"[bold]{group}={option}[/bold]")
        if about := summary_of(text):
            console.print(f"  {about}", markup=False)
        shared = [row for name in re.findall(r"/shared/(\w+)@_here_", text)
                  for row in explained(option_text("shared", name))]  # fmt: skip
        rows = [(f"{group}.{key}", value, why) for key, value, why in [*explained(text), *shared]]
        if rows:
            console.print(key_table(rows))
        console.print()


def key_table(rows: list[tuple[str, str, str]]) -> Table:
    """Keys, defaults and explanations in three columns."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold", style="dim")
    table.add_column(overflow="fold", ratio=1)
    for row in rows:
        table.add_row(*(cell.replace("[", "\\[") for cell in row))
    return table


def summary_of(text: str) -> str:
    """The comment at the head of a YAML: what the option is."""
    lines = []
    for line in text.strip().splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return " ".join(lines)


def explained(text: str) -> list[tuple[str, str, str]]:
    """The keys at the top of a YAML, with their default and the comment that explains each."""
    rows: list[tuple[str, str, str]] = []
    open_ended = False  # whether the next line may go on with a comment
    for line in text.splitlines():
        found = re.match(r"(\w+):[ ]+([^#]*?)[ ]*(?:# (.*))?$", line)
        goes_on = re.match(r"[ ]{2,}# (.*)$", line)
        if found and not found[1].startswith("_"):
            rows.append((found[1], found[2], found[3] or ""))
            open_ended = True
        elif goes_on and rows and open_ended:
            key, value, why = rows[-1]
            rows[-1] = key, value, f"{why} {goes_on[1]}".strip()
        else:
            open_ended = False
    return rows
