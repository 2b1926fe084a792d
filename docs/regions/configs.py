"""Config groups: their options with one line each, keys with defaults and comments, and counts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from modgpt.config.compose import CONFIG_DIR, parse
from modgpt.config.compose import options as options_of
from modgpt.sweep.design import expand
from regions.markdown import table
from regions.source import ROOT, definitions, first_line, first_sentence, following_comments

PARTS = ("attention", "ffn", "norm", "pos")
PAGES = {
    "attention": "attention.md",
    "ffn": "feedforward.md",
    "norm": "normalization.md",
    "pos": "positional_encoding.md",
    "block": "model_architecture.md#a-block",
    "model": "model_architecture.md#sizes",
    "experiment": "huggingface.md",
    "data": "training_loop.md#data",
    "tokenizer": "training_loop.md#data",
    "optimizer": "training_loop.md#optimizer",
    "schedule": "training_loop.md#schedule",
    "sweep": "sweeps.md",
    "trainer": "training_loop.md",
    "callbacks": "training_loop.md",
    "logger": "training_loop.md#metrics",
}


def parts() -> str:
    """Return the table of all groups a user can swap: options, the default, the page to read."""
    defaults = default_choices()
    rows = []
    for group, page in PAGES.items():
        names = [f"`{option}`" for option in options_of(group)]
        default = f"`{defaults[group]}`" if defaults.get(group) else "none"
        rows.append([f"[`{group}`](docs/{page})", ", ".join(names), default])
    return table(("group", "options", "default"), rows)


def options(group: str, linked: str = "") -> str:
    """Return the table of a group's options: what each is, and its own knobs with their defaults.

    With `linked` each option links to the heading of its name.
    """
    default = default_choices().get(group)
    rows = []
    for option in options_of(group):
        keys = [f"`{key}={value}`" for key, value, _ in keys_of(file_of(group, option))]
        name = f"[`{option}`](#{option})" if linked else f"`{option}`"
        name += " (default)" if option == default else ""
        rows.append([name, about(group, option), ", ".join(keys) or "none"])
    return table((f"`{group}=`", "what it is", "its own knobs"), rows)


def knobs(place: str) -> str:
    """Return the table of the keys in one YAML: `knobs attention/linear`, with default and meaning.

    Keys of a group's option are written as on the command line, `attention.chunk`; those of
    `shared/attention`, which every option has, too.
    """
    group, _, option = place.rpartition("/")
    name = option if group == "shared" else group
    prefix = f"{name}." if name else ""
    rows = [
        [f"`{prefix}{key}`", f"`{value}`", comment]
        for key, value, comment in keys_of(file_of(group, option))
    ]
    return table(("key", "default", "meaning"), rows)


def yaml_of(place: str) -> str:
    """Return the YAML of an option as a code block: `yaml attention/linear`."""
    group, _, option = place.partition("/")
    return f"```yaml\n{file_of(group, option).read_text(encoding='utf-8').rstrip()}\n```"


def definition(place: str) -> str:
    """Return the formula of an option as code, from its own file: `definition attention/linear`."""
    group, _, option = place.partition("/")
    module, _, name = OmegaConf.load(file_of(group, option))._target_.rpartition(".")
    return definitions(ROOT / (module.replace(".", "/") + ".py"), name)


def count(group: str) -> str:
    """Return the number of options in a group."""
    return str(len(options_of(group)))


def combinations() -> str:
    """Return the number of compositions of attention, feed-forward, norm and position."""
    return f"{math.prod(len(options_of(group)) for group in PARTS):,}"


def jobs(sweep: str) -> str:
    """Return the number of jobs in a named sweep, without those that choose hyperparameters."""
    sweeper = OmegaConf.load(file_of("sweep", sweep)).hydra.sweeper
    overrides = []
    for key, value in sweeper.params.items():
        value = ",".join(options_of(str(key))) if value == "glob(*)" else value
        overrides.append(f"{key}={value}")
    return str(len(expand(parse(overrides), sweeper.get("design", "grid"), default_choices())))


def about(group: str, option: str) -> str:
    """Return one line on an option: the comment at the top of its YAML, or else of a docstring.

    The docstring is that of the module, where a file belongs to the option, or of the class or function.
    """
    lines = file_of(group, option).read_text(encoding="utf-8").splitlines()
    comment: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    comment = [line for line in comment if not line.startswith("@package")]
    if comment:
        return first_sentence(" ".join(comment))
    target = OmegaConf.load(file_of(group, option)).get("_target_", "")
    path = ROOT / (target.rpartition(".")[0].replace(".", "/") + ".py")
    if not path.exists():
        return f"`{target}`"
    return first_line(path, None if path.stem == option else target.rpartition(".")[2])


def keys_of(path: Path) -> list[tuple[str, str, str]]:
    """Return the plain keys of a YAML file with their values and comments, in its order."""
    text = path.read_text(encoding="utf-8")
    lines, found = text.splitlines(), []
    root = yaml.compose(text)
    for key, value in root.value if isinstance(root, yaml.MappingNode) else []:
        if key.value in ("defaults", "hydra") or key.value.startswith("_"):
            continue
        if isinstance(value, yaml.MappingNode):
            continue
        end = value.end_mark
        behind = lines[end.line][end.column :].strip() if end.line < len(lines) else ""
        below = following_comments(lines[end.line + 1 :], deeper_than=0) if behind else []
        comment = " ".join([behind.lstrip("# "), *below]) if behind.startswith("#") else ""
        found.append((key.value, text[value.start_mark.index : end.index], comment))
    return found


def file_of(group: str, option: str) -> Path:
    return CONFIG_DIR / group / f"{option}.yaml"


def default_choices() -> dict[str, str]:
    """Return the option that each group has by default, from train.yaml."""
    defaults: Any = OmegaConf.load(CONFIG_DIR / "train.yaml").defaults
    chosen = [entry for entry in defaults if not isinstance(entry, str)]
    return {str(group): option for entry in chosen for group, option in entry.items() if option}
