"""Hands modgpt's sweeper and launcher to Hydra, which takes plugins from this namespace only."""

# No `from __future__ import annotations` here: Hydra executes this file without registering it as a
# module, and dataclasses look the names in such annotations up there.
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig


@dataclass
class WorkersConfig:
    """`hydra/launcher=workers`: each job in a process of its own on this machine."""

    _target_: str = "hydra_plugins.modgpt_sweep.WorkersLauncher"
    n_jobs: int | None = None
    timeout: float | None = None
    jobs_per_device: int | None = None


@dataclass
class RayConfig:
    """`hydra/launcher=ray`: each job a Ray task, on this machine or on the cluster at `address`.

    `gpus_per_job` may be a part of 1, for several jobs on each GPU.
    """

    _target_: str = "hydra_plugins.modgpt_sweep.RayLauncher"
    address: str | None = None
    cpus_per_job: int = 1
    gpus_per_job: float | None = None
    timeout: float | None = None


@dataclass
class AblationConfig:
    """`hydra/sweeper=ablation`: `params` lists values, `design` says how they are combined.

    `tune` lists values of which each combination gets its best, chosen on `tune_seeds`.
    `baseline_seeds` are more seeds for the baseline alone. `until_sure` adds seeds to what is undecided.
    """

    _target_: str = "hydra_plugins.modgpt_sweep.AblationSweeper"
    design: str = "grid"
    params: dict[str, Any] = field(default_factory=dict)
    tune: dict[str, Any] = field(default_factory=dict)
    tune_seeds: list[int] = field(default_factory=list)
    baseline_seeds: list[int] = field(default_factory=list)
    until_sure: dict[str, Any] = field(default_factory=dict)  # looks, same_within


@dataclass
class OptunaConfig:
    """`hydra/sweeper=optuna`: trials of what `params` lists, each drawn from what the others came to.

    `batch` trials are drawn at a time; null for as many as run at once.
    """

    _target_: str = "hydra_plugins.modgpt_sweep.OptunaSweeper"
    n_trials: int = 20
    params: dict[str, Any] = field(default_factory=dict)
    sampler: str = "tpe"
    seed: int = 0
    batch: int | None = None


class EngineLauncher(Launcher):
    """A launcher of ours: it makes an engine for a number of jobs, which runs them."""

    @abstractmethod
    def engine(self, most: int) -> Any:
        """An engine that runs up to so many jobs."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        pass

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """For sweepers other than ours."""
        from modgpt.sweep.launch import job_returns, run_sweep

        return job_returns(run_sweep(job_overrides, self.engine(len(job_overrides))))


class WorkersLauncher(EngineLauncher):
    """See `modgpt.sweep.engines.workers`."""

    def __init__(self, n_jobs: int | None, timeout: float | None, jobs_per_device: int | None) -> None:
        self.options = {"n_jobs": n_jobs, "timeout": timeout, "jobs_per_device": jobs_per_device}

    def engine(self, most: int) -> Any:
        from modgpt.sweep.engines.workers import Workers

        return Workers(most, **self.options)


class RayLauncher(EngineLauncher):
    """See `modgpt.sweep.engines.ray_tasks`."""

    def __init__(
        self,
        address: str | None,
        cpus_per_job: int,
        gpus_per_job: float | None,
        timeout: float | None,
    ) -> None:
        self.options = {"address": address, "timeout": timeout}
        self.options |= {"cpus_per_job": cpus_per_job, "gpus_per_job": gpus_per_job}

    def engine(self, most: int) -> Any:
        from modgpt.errors import UserError

        if find_spec("ray") is None:
            raise UserError("hydra/launcher=ray needs ray: install with pip install -e '.[ray]'")
        from modgpt.sweep.engines.ray_tasks import RayTasks

        return RayTasks(most, **self.options)


class EngineSweeper(Sweeper):
    """A sweeper of ours: it plans the jobs itself and hands them to an engine."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.choices = config.hydra.runtime.choices
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def engine(self, most: int) -> Any:
        if isinstance(self.launcher, EngineLauncher):
            return self.launcher.engine(most)
        from modgpt.sweep.engines.hydra_launcher import HydraLauncher

        return HydraLauncher(self.launcher)

    def parse(self, listed: dict[str, Any], arguments: list[str]) -> list[Any]:
        from modgpt.config.search import loader

        overrides = [*(f"{key}={value}" for key, value in listed.items()), *arguments]
        # Not Hydra's loader: `glob(*)` lists the options in the user's folders too.
        return OverridesParser.create(config_loader=loader()).parse_overrides(overrides)


class AblationSweeper(EngineSweeper):
    """See `modgpt.sweep.design`; with `tune`, `modgpt.sweep.tuning`; with `until_sure`, that module."""

    def __init__(
        self,
        design: str,
        params: dict[str, Any],
        tune: dict[str, Any],
        tune_seeds: list[int],
        baseline_seeds: list[int],
        until_sure: dict[str, Any],
    ) -> None:
        self.design, self.params, self.tune, self.tune_seeds = design, params, tune, tune_seeds
        self.baseline_seeds, self.until_sure = baseline_seeds, until_sure

    def sweep(self, arguments: list[str]) -> Any:
        from modgpt.sweep.design import expand
        from modgpt.sweep.launch import folder_of, run_sweep, with_name

        overrides = self.parse(self.params, arguments)
        jobs = with_name(expand(overrides, self.design, self.choices, self.baseline_seeds))
        if self.until_sure:
            from modgpt.sweep.until_sure import run_until_sure, settings

            code = run_until_sure(jobs, settings(self.until_sure, self.tune), self.engine)
        elif self.tune:
            from modgpt.sweep.tuning import run_tuned

            code = run_tuned(jobs, self.parse(self.tune, []), self.tune_seeds, self.engine)
        else:
            code = run_sweep(jobs, self.engine(len(jobs))).code
        folder = folder_of(jobs)
        if code < 128 and folder.is_dir():  # nothing is there after a dry run
            # Above the sweep, for it reads what the sweep has written; pandas takes a second.
            from modgpt.compare.terminal import print_sweep
            from modgpt.console import Output

            print_sweep(Output(), folder)
        if code:
            raise SystemExit(code)


class OptunaSweeper(EngineSweeper):
    """See `modgpt.sweep.search.optuna_search`."""

    def __init__(
        self, n_trials: int, params: dict[str, Any], sampler: str, seed: int, batch: int | None
    ) -> None:
        self.params = params
        self.settings = {"n_trials": n_trials, "sampler": sampler, "seed": seed, "batch": batch}

    def sweep(self, arguments: list[str]) -> Any:
        from modgpt.errors import UserError

        if find_spec("optuna") is None:
            raise UserError("hydra/sweeper=optuna needs optuna: install with pip install -e '.[optuna]'")
        from modgpt.sweep.search.optuna_search import Settings, search

        code = search(self.parse(self.params, arguments), Settings(**self.settings), self.engine)
        if code:
            raise SystemExit(code)


ConfigStore.instance().store(group="hydra/launcher", name="workers", node=WorkersConfig)
ConfigStore.instance().store(group="hydra/launcher", name="ray", node=RayConfig)
ConfigStore.instance().store(group="hydra/sweeper", name="ablation", node=AblationConfig)
ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=OptunaConfig)
