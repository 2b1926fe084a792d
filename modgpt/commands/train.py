"""`modgpt train`: compose, train, and tell mistakes in one line."""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Lets Hydra's errors reach us, instead of being printed over several lines with exit code 1.
os.environ["HYDRA_FULL_ERROR"] = "1"

from hydra._internal.utils import _run_hydra, get_args_parser  # what hydra.main itself calls
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from modgpt.commands.ending import exit_code, tell
from modgpt.commands.flags import Parser
from modgpt.commands.importing import ctrl_c_ends
from modgpt.config.compose import Job, compose_with_hydra, explain, make_job
from modgpt.config.overrides import check_overrides, parse
from modgpt.config.search import CONFIG_DIR, add_config_dir, config_dirs
from modgpt.config.trust import trust_package
from modgpt.errors import TrainingError, UserError
from modgpt.runs.saved import job_of

COMPLETION = re.compile("(install|uninstall|query)=(bash|fish|zsh)")


@dataclass(frozen=True)
class CommandLine:
    """What was typed: overrides, Hydra's own flags, and ours.

    Attributes:
        hydra: Hydra's reading of the arguments, for its own flags.
        overrides: what is to be trained.
        multirun: `-m`.
        resolved: `--resolved`: show what would train, and stop.
    """

    hydra: argparse.Namespace
    overrides: list[str]
    multirun: bool
    resolved: bool


def main(argv: list[str] | None = None) -> int:
    """Run `modgpt train`; returns its exit code: 0, 2 for a mistake, 128 + n for signal n."""
    arguments = sys.argv[1:] if argv is None else argv
    return exit_code(lambda: run(read(arguments)), UserError)


def run(line: CommandLine) -> int:
    """Do what the command line asks for; returns the exit code.

    Raises:
        UserError: it cannot be done.
    """
    if line.hydra.info is None:  # which logs its answer by a handler of its own
        logging.basicConfig(format="%(message)s")
        logging.getLogger("modgpt").setLevel(logging.INFO)
    if line.hydra.help:
        from modgpt.commands.train_help import show_help

        return show_help(line.overrides)
    try:
        if by_hydra(line):
            return run_hydra(line)
        job = job_of(line.overrides)
        return show(job) if line.resolved or job.config.dry_run else run_job(job)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, line.overrides) from error


def read(arguments: list[str]) -> CommandLine:
    """Take the command line apart, and apply what it says about where to look and whom to trust.

    Raises:
        UserError: an override is malformed or unknown, or a flag cannot be honoured.
    """
    ours = Parser(add_help=False, allow_abbrev=False)
    ours.add_argument("--resolved", action="store_true")
    ours.add_argument("--trust", action="append", default=[], metavar="PACKAGE")
    flags, rest = ours.parse_known_args(arguments)
    hydra = hydra_flags(rest)
    if hydra.config_dir is not None:
        add_config_dir(hydra.config_dir)
        hydra.config_dir = None  # ours searches it
    for package in flags.trust:
        trust_package(package)
    if not hydra.help and not hydra.shell_completion:  # both take words that are no overrides
        hydra.overrides = without_searchpath(hydra.overrides)
        sweeps = any(o.key_or_group == "sweep" for o in parse(hydra.overrides))
        check_overrides(hydra.overrides, multirun=hydra.multirun or sweeps)
    return CommandLine(hydra, hydra.overrides, hydra.multirun, flags.resolved)


def hydra_flags(arguments: list[str]) -> argparse.Namespace:
    """Hydra's flags and the overrides, in any order.

    Raises:
        UserError: a flag is not supported, or does not go with another one.
    """
    parser = get_args_parser()
    parser.error = Parser.error.__get__(parser)  # in one line, as those of all commands
    flags = parser.parse_intermixed_args(arguments)
    for name, instead in (("config_path", "--config-dir"), ("config_name", "--config-dir"),
                          ("experimental_rerun", "resume=FOLDER")):  # fmt: skip
        if getattr(flags, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is not supported: use {instead}")
    asked = {"--run": flags.run, "--multirun": flags.multirun, "--cfg": flags.cfg, "--info": flags.info,
             "--shell-completion": flags.shell_completion}  # fmt: skip
    given = [name for name, value in asked.items() if value]
    if len(given) > 1 and not flags.help:
        raise UserError(f"{' and '.join(given)} do not go together: give one of them")
    completion = " ".join(flags.overrides)
    if flags.shell_completion and not COMPLETION.fullmatch(completion):
        raise UserError(f"--shell-completion takes install=bash, fish or zsh, got {completion!r}")
    for name in ("resolve", "package"):
        if getattr(flags, name) and not flags.cfg:
            raise UserError(f"--{name} belongs to --cfg, as in --cfg job --{name}")
    return flags


def without_searchpath(overrides: list[str]) -> list[str]:
    """The overrides but for `hydra.searchpath`, whose folders are searched from here on."""
    others = []
    for text in overrides:
        override = parse([text])[0]
        if override.key_or_group != "hydra.searchpath":
            others.append(text)
            continue
        listed = override.value()
        for where in listed if isinstance(listed, list) else [listed]:
            add_config_dir(str(getattr(where, "text", where)))
    return others


def by_hydra(line: CommandLine) -> bool:
    """Whether Hydra's own program runs this: several jobs, or one of its flags.

    Raises:
        UserError: several jobs are to resume one run, or are to be shown.
    """
    flags = line.hydra
    if flags.cfg or flags.info is not None or flags.hydra_help or flags.shell_completion:
        return True
    keys = {override.key_or_group for override in parse(line.overrides)}
    if "resume" in keys:
        if line.multirun:
            raise UserError("resume=… goes on with one run: leave out -m. A sweep goes on by its "
                            "sweep_name=NAME")  # fmt: skip
        return False
    several = line.multirun
    if not several and ("sweep" in keys or "experiment" in keys or "hydra.mode" in keys):
        # A list of values composes only as several jobs, which is what this asks.
        single = [o.input_line for o in parse(line.overrides) if not o.is_sweep_override()]
        _, several = compose_with_hydra([text for text in single if text is not None])
    if several and line.resolved:
        raise UserError("--resolved shows one job: leave out -m and sweep=…; dry_run=true shows a sweep")
    return several


def run_hydra(line: CommandLine) -> int:
    """Let Hydra's program run the sweeper, or answer one of its flags; the exit code."""
    code = 0

    def task(config: DictConfig) -> None:
        # A job tells its own mistakes: through Hydra they would come with its traceback, and the other
        # jobs of a multirun would not run.
        nonlocal code
        composed = HydraConfig.get()
        try:
            chosen = OmegaConf.to_container(composed.runtime.choices)
            code = max(code, run_job(make_job(config, chosen, composed.overrides.task)))
        except UserError as error:
            code = tell(error)

    shown = line.hydra.package
    if line.hydra.cfg == "job" and shown and "@" not in shown:
        config, _ = compose_with_hydra(line.overrides)
        if OmegaConf.select(config, shown, throw_on_missing=False) is None:
            raise UserError(f"--package {shown}: the configuration has nothing there")
    if config_dirs():
        line.hydra.overrides.append(f"hydra.searchpath=[{','.join(map(repr, config_dirs()))}]")
    _run_hydra(
        args=line.hydra,
        args_parser=get_args_parser(),
        task_function=task,
        config_path=str(CONFIG_DIR),
        config_name="train",
    )
    return code


def show(job: Job) -> int:
    """Print the complete configuration of a job and what was derived; nothing is trained."""
    from modgpt.training.prepare import prepare

    ready = prepare(job)
    print(OmegaConf.to_yaml(ready.config), end="")
    print("# Derived from the data, the machine and match:")
    for name, value in derived(ready).items():
        print(f"#   {name}: {value}")
    return 0


def derived(ready: Any) -> dict[str, Any]:
    """What was not in the composition, by key."""
    values = {
        "model.vocab_size": ready.config.model.vocab_size,
        "threads": ready.machine.threads,
        "trainer.precision": ready.machine.precision,
        "compile": ready.machine.compile,
    }
    if ready.matched is not None:
        values["ffn.hidden"] = f"{ready.matched.hidden} (match={ready.matched.quantity})"
    values["parameters"] = f"{ready.cost.parameters:,} ({ready.cost.active_parameters:,} per token)"
    values["FLOPs per token"] = f"{ready.cost.flops:,.0f} (forward)"
    values["tokens"] = f"{ready.training_tokens:,}"
    return values


def run_job(job: Job) -> int:
    """Train one composed job and print its summary; the exit code."""
    # Only now: what is wrong with the composition has been told without waiting for torch.
    with ctrl_c_ends():
        from modgpt.inference.samples import sample
        from modgpt.runs.session import Interrupted, Session
        from modgpt.training.distributed import is_leader
        from modgpt.training.loop import train
        from modgpt.training.summary import print_summary

    if job.config.job_folder is not None:
        return run_job_of_sweep(job)
    try:
        with Session(is_leader()) as session:
            outcome = train(job, session)
            model, seed = outcome.module.model, job.config.seed
            text = sample(model, outcome.data, max_new_tokens=200, seed=seed)
            print_summary(outcome.folder, outcome.record, text, outcome.data.chance)
    except Interrupted as stop:
        print(stop.advice(), file=sys.stderr)
        sys.exit(128 + stop.signum)  # leaves a multirun too, and does not start its next job
    except TrainingError as error:
        tell(error)
        return 1
    return 0


def run_job_of_sweep(job: Job) -> int:
    """Train a job that a sweep has planned, in its own folder; the exit code.

    It runs in whatever process a launcher of Hydra's has made for it, or is one of several processes of
    one job, of which the first claims the folder.
    """
    from modgpt.sweep.requeue import attempt_queued, follow
    from modgpt.training.distributed import is_leader

    folder = Path(job.config.job_folder)
    job.config.job_folder = None  # its folder is no part of a job: all launchers run the same one
    return attempt_queued(job, folder) if is_leader() else follow(job, folder)


if __name__ == "__main__":  # the processes of further devices start here
    sys.exit(main())
