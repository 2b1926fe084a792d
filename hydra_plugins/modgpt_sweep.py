"""Hands modgpt's sweeper and launcher to Hydra, which takes plugins from this namespace only."""

# No `from __future__ import annotations` here: Hydra executes this file without registering it as a
# module, and dataclasses look the names in such annotations up there.
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig


@dataclass
class WorkersConfig:
    """`hydra/launcher=workers`: each job in a process of its own."""

    _target_: str = "hydra_plugins.modgpt_sweep.WorkersLauncher"
    n_jobs: int | None = None
    timeout: float | None = None


@dataclass
class AblationConfig:
    """`hydra/sweeper=ablation`: `params` lists values, `design` says how they are combined."""

    _target_: str = "hydra_plugins.modgpt_sweep.AblationSweeper"
    design: str = "grid"
    params: dict[str, Any] = field(default_factory=dict)


class WorkersLauncher(Launcher):
    """See `modgpt.sweep.launch`."""

    def __init__(self, n_jobs: int | None, timeout: float | None) -> None:
        self.n_jobs, self.timeout = n_jobs, timeout

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        pass

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        from modgpt.sweep.launch import launch

        code = launch(job_overrides, self.n_jobs, self.timeout)
        if code:
            raise SystemExit(code)
        return []


class AblationSweeper(Sweeper):
    """See `modgpt.sweep.design`."""

    def __init__(self, design: str, params: dict[str, Any]) -> None:
        self.design, self.params = design, params

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.choices = config.hydra.runtime.choices
        self.loader = hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: list[str]) -> Any:
        from modgpt.sweep.design import expand

        listed = [f"{key}={value}" for key, value in self.params.items()]
        parsed = OverridesParser.create(config_loader=self.loader).parse_overrides([*listed, *arguments])
        return self.launcher.launch(expand(parsed, self.design, self.choices), initial_job_idx=0)


ConfigStore.instance().store(group="hydra/launcher", name="workers", node=WorkersConfig)
ConfigStore.instance().store(group="hydra/sweeper", name="ablation", node=AblationConfig)
