"""Configurations that begin from a saved run: `resume=FOLDER` and `init_from=FOLDER`.

The saved `config.yaml` is what counts, not the overrides in the record and not today's defaults. It is
data (`modgpt.config.trust`): where files are written is decided anew, never taken from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from modgpt.config.compose import Job, compose_job, make_job
from modgpt.config.keys import KEYS, LATER, PARTS, command_keys
from modgpt.config.overrides import assignment, check_overrides, key_of, parse
from modgpt.config.search import groups
from modgpt.config.trust import read_config
from modgpt.errors import UserError, did_you_mean
from modgpt.runs.record import read_record

# A run may change these of its model: they alter the training, not the meaning of the weights.
CHANGEABLE = ("dropout", "init_std", "residual_std", "seed")
KEPT = (*PARTS, "model", "experiment", "sweep", "tokenizer")
# Where a configuration could say that files go: always decided anew.
PLACES = (
    *("dirpath", "save_dir", "default_root_dir", "log_dir", "root_dir", "folder", "dir"),
    *("offline_directory", "artifact_location", "tracking_uri", "server_url", "base_url", "host"),
)


def job_of(overrides: Sequence[str], trust: Sequence[str] = ()) -> Job:
    """The job of a command line, whether it begins anew or from a saved run.

    Args:
        overrides: of the command line.
        trust: packages of the user's whose classes a saved configuration may name.

    Raises:
        UserError: an override is wrong, or the run cannot be read.
    """
    keys = {override.key_or_group: override for override in parse(overrides)}
    resume = str(keys["resume"].value()) if "resume" in keys else "null"
    if resume not in ("null", "None"):
        if "init_from" in keys:
            raise UserError(
                "resume=… goes on with a run, init_from=… begins a new one: give one of them"
            )
        return resumed_job(Path(resume), overrides, trust)
    job = compose_job(overrides)
    return job if job.config.init_from is None else with_architecture(job, trust)


def resumed_job(folder: Path, overrides: Sequence[str], trust: Sequence[str] = ()) -> Job:
    """The saved job of a run, changed by the overrides given now.

    Raises:
        UserError: no run there, or an override that a resumed run cannot have.
    """
    check_overrides(overrides)
    record = read_record(folder)
    config = read_config(folder / "config.yaml", trust)
    for name, about in KEYS.items():
        if about.required and about.type is None and not isinstance(config.get(name), DictConfig):
            raise UserError(f"{folder / 'config.yaml'} is damaged: it has no {name}")
    for name, without in LATER.items():
        if name not in config:
            config[name] = without
    today = composed_as(record.choices)
    forget_places(config, today.config)
    link_again(config, today.config)
    given = [o for o in parse(overrides) if o.key_or_group != "resume"]
    swapped = [o for o in given if o.key_or_group in groups() or o.package is not None]
    check_swaps(swapped)
    chosen = dict(record.choices)
    if swapped:  # `optimizer=muon`: today's option, whole
        fresh = compose_job([o.input_line or "" for o in swapped])
        for override in swapped:
            group = override.key_or_group
            config[group] = fresh.config[group]
            chosen[group] = fresh.choices.get(group, "")
    for override in given:
        if override not in swapped:
            change(config, override)
    config.resume = str(folder)
    saved = [o for o in record.overrides if is_override(o)]
    given_keys = {key_of(o) for o in overrides}
    kept = [o for o in saved if key_of(o) not in given_keys | command_keys()]
    job = make_job(config, {g: chosen.get(g) for g in groups()}, [])
    return replace(job, overrides=[*kept, *overrides])


def composed_as(choices: dict[str, str]) -> Job:
    """Today's composition of a saved run's options, or the default one where they are unknown."""
    try:
        return compose_job([f"{g}={option}" for g, option in choices.items() if g != "sweep"])
    except UserError:
        return compose_job()


def link_again(config: DictConfig, today: DictConfig) -> None:
    """Let the values of a saved configuration follow others again, as the packaged configs say.

    A saved configuration is resolved: `schedule.max_steps` is a number there, and `${trainer.max_steps}`
    in its YAML. A value that differs from what it would follow was set by itself, and stays.
    """
    for path, node in nodes(today):
        for key in node:
            raw = OmegaConf.to_container(node, resolve=False)[key]  # type: ignore[index,call-overload]
            where = f"{path}.{key}".lstrip(".")
            if not (isinstance(raw, str) and "${" in raw) or OmegaConf.select(config, where) is None:
                continue
            value = OmegaConf.select(config, where)
            OmegaConf.update(config, where, raw)
            try:
                follows = OmegaConf.select(config, where) == value
            except OmegaConfBaseException:
                follows = False
            if not follows:
                OmegaConf.update(config, where, value)


def check_swaps(swapped: Sequence[Override]) -> None:
    """Refuse to change what makes the model, the data or the tokenizer of a resumed run."""
    for override in swapped:
        group = override.key_or_group
        if group in KEPT or override.package is not None:
            raise UserError(
                f"{override.input_line}: a resumed run keeps its architecture and its recipe; "
                "start a new run for another one"
            )


def forget_places(config: DictConfig, default: DictConfig) -> None:
    """Take where files go from today's defaults instead of from the saved configuration."""
    for name in command_keys():
        if name in default:
            config[name] = default[name]
    for group in ("callbacks", "logger", "trainer"):
        for path, node in nodes(config[group]):
            for key in PLACES:
                if key in node:
                    node[key] = None
            filename = node.get("filename")
            if filename is not None and Path(str(filename)).name != str(filename):
                raise UserError(
                    f"refused {group}.{path}.filename={filename!r}: it leaves the run's folder"
                )


def nodes(node: Any, path: str = "") -> list[tuple[str, DictConfig]]:
    """Every mapping of a configuration, with its path."""
    if isinstance(node, ListConfig):
        return [found for i, value in enumerate(node) for found in nodes(value, f"{path}.{i}")]
    if not isinstance(node, DictConfig):
        return []
    plain = [key for key in node if OmegaConf.is_config(node._get_node(key))]
    below = [found for key in plain for found in nodes(node[key], f"{path}.{key}".lstrip("."))]
    return [(path, node), *below]


def change(config: DictConfig, override: Override) -> None:
    """Apply one `key=value`, `+key=value` or `~key` to a saved configuration.

    Raises:
        UserError: the configuration has no such key.
    """
    key = override.key_or_group
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    known = isinstance(node, DictConfig) and leaf in node
    if not isinstance(node, DictConfig) or not (known or override.is_add()):
        names = [str(k) for k in node if not str(k).startswith("_")] if node else []
        has = f" ({parent} has: {', '.join(names)})" if names else ""
        raise UserError(f"unknown key {key!r}{did_you_mean(leaf, names)}{has}")
    with open_dict(node):
        if override.is_delete():
            del node[leaf]
        else:
            node[leaf] = override.value()


def is_override(text: str) -> bool:
    """Whether a text of a record reads as an override; a record is data, and may hold anything."""
    try:
        parse([text])
    except UserError:
        return False
    return True


def with_architecture(job: Job, trust: Sequence[str] = ()) -> Job:
    """A job with the architecture and tokenizer of the run that `init_from` names.

    What alters only the training, such as dropout, stays as composed.

    Raises:
        UserError: no run there, or an override asks for another architecture.
    """
    folder = Path(job.config.init_from)
    record = read_record(folder)
    saved = read_config(folder / "config.yaml", trust)
    config = job.config.copy()
    asked = [o for o in parse(job.overrides) if o.key_or_group.split(".")[0] in (*PARTS, "model")]
    for group in (*PARTS, "model"):
        if not isinstance(saved.get(group), DictConfig):
            raise UserError(f"{folder / 'config.yaml'} is damaged: it has no {group}")
        if any(o.key_or_group == group or o.package is not None for o in asked):
            continue  # as composed; what differs is refused when the weights are loaded
        composed, config[group] = config[group], saved[group]
        for key in CHANGEABLE:
            if key in composed:
                config[group][key] = composed[key]
    for override in asked:
        if override.key_or_group not in groups() and override.package is None:
            change(config, override)
    config.match = "none"
    tokenizer = compose_job(["tokenizer=saved", assignment("tokenizer.path", folder / "tokenizer.json")])
    config.tokenizer = tokenizer.config.tokenizer
    choices = job.choices | {g: record.choices[g] for g in PARTS if g in record.choices}
    return Job(config, choices | {"tokenizer": "saved"}, job.overrides)


def differences(
    before: DictConfig, after: DictConfig, among: Sequence[str]
) -> list[tuple[str, Any, Any]]:
    """The keys of some groups that differ and are not `CHANGEABLE`, with both values."""
    found = []
    for group in among:
        old, new = flat(before[group], group), flat(after[group], group)
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key) and key.split(".")[-1] not in CHANGEABLE:
                found.append((key, old.get(key), new.get(key)))
    return found


def flat(node: Any, path: str) -> dict[str, Any]:
    """A nested configuration as dotted keys and plain values."""
    if not isinstance(node, DictConfig):
        return {path: node}
    return {k: v for key, value in node.items() for k, v in flat(value, f"{path}.{key}").items()}
