"""From overrides to a configuration, with every mistake told in one line.

Imports neither torch nor Lightning: a typo is answered at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from modgpt.errors import UserError, did_you_mean

CONFIG_DIR = Path(__file__).resolve().parents[1] / "configs"

# The groups that make the model; a run cannot change them once it has weights.
PARTS = ("attention", "ffn", "norm", "pos", "block")
REQUIRED = (
    *PARTS,
    *("model", "tokenizer", "data", "optimizer", "schedule", "trainer", "callbacks", "logger"),
)
# What belongs to the command line, not to the recipe.
RUN_KEYS = (
    "run_name",
    "resume",
    "output_dir",
    "sweep",
    "sweep_dir",
    "sweep_name",
    "job_folder",
    "dry_run",
    "retry_failed",
)

OmegaConf.register_new_resolver("fit", lambda total, size: fit(total, size), replace=True)


def fit(total: int, size: object) -> int:
    """${fit:4096,${model.block_size}}: how many of a size fit into a total, and at least one."""
    # What is wrong with a size that cannot be is told where it belongs.
    return max(1, total // size) if isinstance(size, int) and size > 0 else total


@dataclass(frozen=True)
class Job:
    """One composed training: the configuration, the option chosen in every group, the overrides."""

    config: DictConfig
    choices: dict[str, str]
    overrides: list[str]


def groups() -> list[str]:
    """The config groups there are, by name."""
    return sorted(p.name for p in CONFIG_DIR.iterdir() if p.is_dir() and p.name != "shared")


def options(group: str) -> list[str]:
    """The options of a config group, by name."""
    return sorted(p.stem for p in (CONFIG_DIR / group).glob("*.yaml"))


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration that `modgpt train` would get from these overrides.

    Raises:
        UserError: an unknown group, option or key, or a malformed override.
    """
    return compose_job(overrides).config


def compose_job(overrides: Sequence[str] = ()) -> Job:
    """`compose`, with the choices and overrides beside the configuration."""
    check_overrides(overrides)
    hydra = GlobalHydra.instance()
    outer = hydra.hydra  # set inside hydra.main, which composes the jobs of a sweep through here
    hydra.clear()
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3", job_name="train"):
            config = hydra_compose("train", overrides=list(overrides), return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, overrides) from error
    finally:
        hydra.hydra = outer
    chosen = OmegaConf.to_container(config.hydra.runtime.choices)
    with open_dict(config):
        del config["hydra"]
    return make_job(config, chosen, overrides)


def make_job(config: DictConfig, chosen: object, overrides: Iterable[str]) -> Job:
    """A checked job from a composed configuration and Hydra's record of the choices.

    Raises:
        UserError: the configuration has a key at its top that nothing reads, or lacks a group.
    """
    assert isinstance(chosen, dict)
    overrides = list(overrides)
    check_top(config)
    drop_replaced_knobs(config, chosen, overrides)
    check_placed(config, overrides)
    for group in REQUIRED:
        if config.get(group) is None:
            raise UserError(
                f"the group {group} cannot be left out: choose one of {', '.join(options(group))}"
            )
    names = groups()
    return Job(config, {g: str(chosen[g]) for g in names if chosen.get(g)}, overrides)


def label(choices: dict[str, str]) -> str:
    """A name for what has been chosen: the experiment, if it is one, and the parts."""
    named = ("experiment", *(part for part in PARTS if part != "block"))
    return "-".join(choices[group] for group in named if group in choices)


def drop_replaced_knobs(config: DictConfig, chosen: dict[str, str], overrides: list[str]) -> None:
    """Take back what an experiment sets of an option that has been replaced by another.

    In experiment=gpt2 ffn=swiglu the activation of GPT-2's feed-forward has to go, or SwiGLU would get
    it. A knob stays where the other option has it too, with the same default: attention.bias.
    """
    if chosen.get("experiment") is None:
        return
    recommended, recipe = recipe_named(chosen["experiment"])
    given = {override.key_or_group for override in parse(overrides)}
    for part, option in recommended.items():
        if part not in recipe or chosen[part] == option:
            continue
        before, after = option_defaults(part, option), option_defaults(part, chosen[part])
        with open_dict(config):
            for knob in recipe[part]:
                if f"{part}.{knob}" in given or (knob in after and before[knob] == after[knob]):
                    continue
                if knob in after:
                    config[part][knob] = after[knob]
                else:
                    del config[part][knob]


def recipe_named(experiment: str) -> tuple[dict[str, str], DictConfig]:
    """What an experiment chooses, by group, and its knobs; both with those of one it builds on."""
    knobs = OmegaConf.load(CONFIG_DIR / "experiment" / f"{experiment}.yaml")
    assert isinstance(knobs, DictConfig)
    chosen: dict[str, str] = {}
    for default in knobs.pop("defaults", []):
        if default == "_self_":
            continue
        if isinstance(default, str):
            chosen, inherited = recipe_named(default)
            knobs = OmegaConf.merge(inherited, knobs)
            assert isinstance(knobs, DictConfig)
        else:
            ((group, option),) = default.items()
            chosen[group.removeprefix("override /")] = option
    return chosen, knobs


def check_placed(config: DictConfig, overrides: list[str]) -> None:
    """Refuse an option for a place (`norm@attention.qk_norm=…`) that something else fills.

    Raises:
        UserError: the option is not what stands at its place.
    """
    for override in parse(overrides):
        option = override.value()
        if override.package is None or override.is_delete() or not isinstance(option, str):
            continue
        group, place = override.key_or_group, override.package
        found = OmegaConf.select(config, f"{place}._target_")
        if found != option_defaults(group, option)._target_:
            raise UserError(f"{group}@{place}={option} has no effect: nothing reads it at that place")


@cache
def option_defaults(group: str, option: str) -> DictConfig:
    """The configuration of an option as its YAML gives it."""
    return compose([f"{group}={option}"])[group]


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's reading of the overrides.

    Raises:
        UserError: one of them is not of the form key=value.
    """
    parser = OverridesParser.create()
    parsed = []
    for override in overrides:
        try:
            parsed += parser.parse_overrides([override])
        except HydraException as error:
            raise UserError(
                f"cannot read {override!r}: overrides are written key=value, such as ffn=moe or "
                "optimizer.lr=1e-3; quote values with spaces or commas: 'run_name=\"a, b\"'"
            ) from error
    return parsed


def assignment(key: str, value: object) -> str:
    """An override, quoted so that Hydra takes the value for a text whatever is in it."""
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse unknown groups and options before anything is composed.

    Raises:
        UserError: with what was meant, or what there is.
    """
    for override in parse(overrides):
        name = override.key_or_group
        if name.startswith("hydra"):
            continue  # Hydra's own groups and keys are Hydra's to check
        if "/" in name or override.package is not None or (CONFIG_DIR / name).is_dir():
            check_option(override, name)
        else:
            top = name.split(".")[0]
            check_known(top, "group or key" if top == name else "group")


def check_option(override: Override, group: str) -> None:
    if group not in groups():
        raise UserError(f"unknown group {group!r}{did_you_mean(group, groups())}")
    value = override.value()
    if value is None and not override.is_delete():  # Hydra takes the words, and fails on the value
        key = override.get_key_element()
        raise UserError(f"{key}=null cannot be: leave a group out with '~{key}'")
    if isinstance(value, Glob) or value is None or isinstance(value, dict):
        return
    if isinstance(value, ChoiceSweep):
        value = value.list
    for option in value if isinstance(value, list) else [value]:
        option = getattr(option, "text", option)  # a quoted string
        if str(option) not in options(group):
            raise UserError(
                f"unknown option {group}={option}{did_you_mean(str(option), options(group))} "
                f"({group} has: {', '.join(options(group))})"
            )


@cache
def top_keys() -> frozenset[str]:
    """The names the configuration may have at its top: groups and the keys of train.yaml."""
    plain = OmegaConf.load(CONFIG_DIR / "train.yaml")
    assert isinstance(plain, DictConfig)
    return frozenset(str(key) for key in plain) - {"defaults", "hydra"} | set(groups())


def check_known(name: str, kind: str) -> None:
    known = top_keys()
    if name not in known:
        raise UserError(
            f"unknown {kind} {name!r}{did_you_mean(name, known)} "
            f"(groups: {', '.join(groups())}; keys: {', '.join(sorted(known - set(groups())))})"
        )


def check_top(config: DictConfig) -> None:
    """Refuse what a `+` has added at the top, where nothing would read it."""
    for key in config:
        check_known(str(key), "group or key")


def explain(error: Exception, overrides: Sequence[str]) -> UserError:
    """The one line that tells what Hydra found wrong."""
    for override in parse(overrides):
        key = override.key_or_group
        if f"Could not override '{key}'" in str(error):
            return UserError(unknown_key(key, overrides))
    for launcher in ("submitit_slurm", "submitit_local"):
        if f"Could not find 'hydra/launcher/{launcher}'" in str(error):
            return UserError(
                f"hydra/launcher={launcher} needs submitit: install with pip install -e '.[slurm]'"
            )
    return UserError(str(error))


def unknown_key(key: str, overrides: Sequence[str]) -> str:
    """What is wrong with a key that the composition does not have."""
    parent, _, leaf = key.rpartition(".")
    others = [o for o in overrides if parse([o])[0].key_or_group != key]
    try:
        node = OmegaConf.select(compose(others), parent)
    except UserError:
        node = None
    if not isinstance(node, DictConfig):
        return f"unknown key {key!r}"
    keys = [str(k) for k in node if not str(k).startswith("_")]
    elsewhere = [o for o in options(parent) if leaf in OmegaConf.load(CONFIG_DIR / parent / f"{o}.yaml")]
    hint = f"; {parent}={elsewhere[0]} has it" if elsewhere else did_you_mean(leaf, keys)
    return f"unknown key {key!r}{hint} ({parent} has: {', '.join(keys)})"
