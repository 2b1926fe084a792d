"""Where options come from: the packaged configs, and the config folders that a user adds.

Hydra's own config loader finds the options, so that a user's folder works like ours: in checks, help,
`glob(*)`, sweeps and reports.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, OmegaConf

from modgpt.errors import UserError

CONFIG_DIR = Path(__file__).resolve().parents[1] / "configs"
INTERNAL = ("shared", "hydra")  # groups that nobody chooses from

_added: list[str] = []


def add_config_dir(where: str) -> None:
    """Search one more folder for options, before the packaged ones; for this process.

    Args:
        where: a path, or `file://path` or `pkg://package.of.configs` as in `hydra.searchpath`.

    Raises:
        UserError: there is no such folder.
    """
    scheme, _, rest = where.rpartition("://")
    if scheme not in ("", "file", "pkg"):
        raise UserError(f"config folder {where!r}: give a path, file://PATH or pkg://PACKAGE")
    if scheme == "pkg":
        try:
            found = files(rest).is_dir()
        except (ModuleNotFoundError, TypeError, ValueError):
            found = False
    else:
        found, where = Path(rest).is_dir(), f"file://{Path(rest).absolute()}"
    if not found:
        raise UserError(f"no config folder {rest!r}")
    if where not in _added:
        _added.append(where)


def config_dirs() -> tuple[str, ...]:
    """The folders that were added, the first one searched first."""
    return tuple(_added)


def loader() -> ConfigLoaderImpl:
    """Hydra's config loader over all folders."""
    return _loader(config_dirs())


@cache
def _loader(added: tuple[str, ...]) -> ConfigLoaderImpl:
    path = create_config_search_path(str(CONFIG_DIR))
    for where in reversed(added):
        path.prepend(provider="config folder", path=where)
    return ConfigLoaderImpl(config_search_path=path)


def groups() -> list[str]:
    """The config groups, by name."""
    return [*_names("", ObjectType.GROUP)]


def options(group: str) -> list[str]:
    """The options of a config group, by name.

    The variants that belong to a recipe, such as `ffn=gpt2/standard`, are not among them: a sweep over
    `glob(*)` compares options, not recipes.
    """
    return [*_names(group, ObjectType.CONFIG)]


def variants(group: str) -> list[str]:
    """The variants of options that recipes bring along, as `recipe/option`."""
    recipes = _names(group, ObjectType.GROUP)
    return [f"{recipe}/{option}" for recipe in recipes for option in options(f"{group}/{recipe}")]


def _names(group: str, kind: ObjectType) -> tuple[str, ...]:
    return _listed(group, kind, config_dirs())


@cache  # Hydra copies its whole repository for each listing
def _listed(group: str, kind: ObjectType, added: tuple[str, ...]) -> tuple[str, ...]:
    found = _loader(added).get_group_options(group, kind)
    return tuple(sorted(set(found).difference(() if group else INTERNAL)))


def option_node(group: str, option: str) -> DictConfig:
    """The content of an option's YAML, its defaults list left out."""
    found = loader().repository.load_config(f"{group}/{option}")
    assert found is not None
    node = OmegaConf.create(OmegaConf.to_container(found.config, resolve=False))
    assert isinstance(node, DictConfig)
    return node


def option_text(group: str, option: str) -> str:
    """The text of an option's YAML, with its comments."""
    found = loader().repository.load_config(f"{group}/{option}")
    assert found is not None
    scheme, _, base = found.path.rpartition("://")
    name = f"{group}/{option}.yaml"
    if scheme == "pkg":
        return files(base).joinpath(*name.split("/")).read_text(encoding="utf-8")
    return Path(base, name).read_text(encoding="utf-8")
