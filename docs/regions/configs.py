"""Config groups: their options with one line each, keys with defaults and comments, and counts."""

from __future__ import annotations

import math
from pathlib import Path

from omegaconf import OmegaConf

from modgpt.commands.train_help import explained, summary_of
from modgpt.config.compose import compose_job
from modgpt.config.keys import KEYS
from modgpt.config.overrides import parse
from modgpt.config.search import option_node, option_text
from modgpt.config.search import options as options_of
from modgpt.sweep.design import expand
from regions.markdown import table
from regions.source import ROOT, definitions, first_line, first_sentence

RECIPES = ("experiment", "sweep")  # they set keys of other groups, and have none of their own
# The page that explains a group.
PAGES = {
    "attention": "attention.md",
    "ffn": "feedforward.md",
    "norm": "normalization.md",
    "pos": "positional_encoding.md",
    "block": "model_architecture.md#a-block",
    "model": "model_architecture.md#sizes",
    "tokenizer": "training_loop.md#data",
    "data": "training_loop.md#data",
    "optimizer": "training_loop.md#optimizer",
    "schedule": "training_loop.md#schedule",
    "trainer": "training_loop.md#the-trainer",
    "callbacks": "training_loop.md#the-trainer",
    "logger": "training_loop.md#metrics",
    "experiment": "training_loop.md#recipes",
    "sweep": "sweeps.md#named-sweeps",
}


def parts() -> str:
    """Return the table of all groups a user can swap: options, the default, the page to read."""
    defaults, rows = compose_job().choices, []
    for group in (name for name, key in KEYS.items() if key.type is None):
        names = ", ".join(f"`{option}`" for option in options_of(group))
        default = f"`{defaults[group]}`" if group in defaults else "none"
        rows.append([f"[`{group}`](docs/{PAGES[group]})", names, default])
    return table(("group", "options", "default"), rows)


def options(group: str, linked: str = "") -> str:
    """Return the table of a group's options: what each is, and its own knobs with their defaults.

    With `linked` each option links to the heading of its name.
    """
    default, rows = compose_job().choices.get(group), []
    for option in options_of(group):
        name = f"[`{option}`](#{option})" if linked else f"`{option}`"
        row = [name + (" (default)" if option == default else ""), about(group, option)]
        if group not in RECIPES:
            keys = explained(option_text(group, option))
            row.append(", ".join(f"`{key}={value}`" for key, value, _ in keys) or "none")
        rows.append(row)
    head = [f"`{group}=`", "what it is", "its own knobs"]
    return table(head[: len(rows[0])], rows)


def knobs(place: str) -> str:
    """Return the table of the keys in one YAML: `knobs attention/linear`, with default and meaning.

    Keys are written as on the command line: `attention.chunk`, also for those of `shared/attention` and
    `shared/softmax_attention`.
    """
    group, _, option = place.partition("/")
    prefix = option.rpartition("_")[2] if group == "shared" else group
    rows = [
        [f"`{prefix}.{key}`", f"`{value}`", meaning]
        for key, value, meaning in explained(option_text(group, option))
    ]
    return table(("key", "default", "meaning"), rows)


def keys() -> str:
    """Return the table of the plain keys of a command, with default and meaning."""
    text = (ROOT / "modgpt" / "configs" / "train.yaml").read_text(encoding="utf-8")
    rows = [
        [f"`{key}`", f"`{value}`", meaning]
        for key, value, meaning in explained(text)
        if key in KEYS and key != "job_folder"  # which a sweep sets
    ]
    return table(("key", "default", "meaning"), rows)


def yaml_of(place: str) -> str:
    """Return the YAML of an option as a code block: `yaml attention/linear`."""
    group, _, option = place.partition("/")
    return f"```yaml\n{option_text(group, option).rstrip()}\n```"


def definition(place: str) -> str:
    """Return the formula of an option as code, from its own file: `definition attention/linear`."""
    group, _, option = place.partition("/")
    path, name = home_of(group, option)
    return definitions(path, name) if path.exists() else f"`{path.stem}.{name}`"


def count(group: str) -> str:
    """Return the number of options in a group."""
    return str(len(options_of(group)))


def combinations() -> str:
    """Return the number of compositions of attention, feed-forward, norm and position that exist."""
    from modgpt.testing.build import fit  # imports PyTorch

    fitting = sum(fit(a, p) for a in options_of("attention") for p in options_of("pos"))
    return f"{fitting * math.prod(len(options_of(group)) for group in ('ffn', 'norm')):,}"


def jobs(sweep: str) -> str:
    """Return the number of jobs in a named sweep, without those that choose hyperparameters."""
    sweeper = option_node("sweep", sweep).hydra.sweeper
    overrides = []
    for key, value in sweeper.params.items():
        value = ",".join(options_of(str(key))) if value == "glob(*)" else value
        overrides.append(f"{key}={value}")
    return str(len(expand(parse(overrides), sweeper.get("design", "grid"), compose_job().choices)))


def about(group: str, option: str) -> str:
    """Return one line on an option: the comment at the top of its YAML, or else of a docstring.

    The docstring is that of the module, where a file belongs to the option, or of the class or function.
    """
    if comment := summary_of(option_text(group, option)):
        return first_sentence(comment)
    path, name = home_of(group, option)
    if not path.exists():
        return f"`{path.stem}.{name}`"
    return first_line(path, None if path.stem == option else name)


def home_of(group: str, option: str) -> tuple[Path, str]:
    """Return the file that an option's `_target_` is in, and its name there."""
    target = OmegaConf.select(option_node(group, option), "_target_") or ""
    module, _, name = target.rpartition(".")
    return ROOT / (module.replace(".", "/") + ".py"), name
