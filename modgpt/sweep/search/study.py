"""The trials of a search in `study.db`, which survives kills and which processes share."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from modgpt.config.keys import command_keys
from modgpt.config.overrides import parse
from modgpt.errors import UserError
from modgpt.runs.lease import Lease, held, locked
from modgpt.sweep.search.distributions import Space

SAMPLERS = ("tpe", "random")


class Study:
    """The trials of a search, shared between processes.

    Each running trial belongs to one process. The process holds a lease while it lives. When it dies,
    another process takes over its trials with the same parameters, so that their jobs resume. All
    changes are made under the sweep's lock.

    Args:
        sweep: folder of the sweep.
        space: the search space.
        job: name of the space's first job. Its hash shows whether the settings are the same.
        sampler: one of `SAMPLERS`.
        seed: of the sampler.
        dry: work on a copy in memory and write nothing.

    Raises:
        UserError: the folder has a study of another search.
    """

    def __init__(
        self, sweep: Path, space: Space, job: str, sampler: str, seed: int, dry: bool = False
    ) -> None:
        self.sweep, self.space, self.sampler, self.seed, self.dry = sweep, space, sampler, seed, dry
        self.process = secrets.token_hex(8)
        self.lease = Lease(self.folder_of(self.process))
        if not dry:
            sweep.mkdir(parents=True, exist_ok=True)
        with self.lock():
            self.study = open_study(sweep, dry)
            wanted = {"space": space.described(), "fixed": lasting(space.fixed), "job": job}
            found = self.study.user_attrs.get("search")
            if found is None:
                self.study.set_user_attr("search", wanted)
            elif difference := differing(found, wanted):
                raise UserError(
                    f"the study of sweep_name={sweep.name} is another search: {difference}; "
                    "take another sweep_name"
                )

    def __enter__(self) -> Study:
        if not self.dry:
            self.lease.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.dry:
            self.lease.release()
            shutil.rmtree(self.lease.folder, ignore_errors=True)

    def lock(self) -> AbstractContextManager[object]:
        return nullcontext() if self.dry else locked(self.sweep / ".lock")

    def folder_of(self, process: str) -> Path:
        return self.sweep / f".search-{process}"

    def counted(self) -> list[FrozenTrial]:
        """The trials that count towards `n_trials`: all but waiting and retried ones."""
        trials = self.study.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get("retry_of") for trial in trials}
        return [t for t in trials if t.state != TrialState.WAITING and t.number not in retried]

    def take(self, most: int, n_trials: int) -> list[Trial]:
        """The next trials to run: first those of dead processes, then new ones.

        Args:
            most: number of trials to take.
            n_trials: number of trials at which the study is complete.
        """
        with self.lock():
            found = self.counted()
            left = [t for t in found if t.state == TrialState.RUNNING and not self.owned(t)][:most]
            new = max(0, min(most - len(left), n_trials - len(found)))
            return [self.filled(trial) for trial in [*left, *[None] * new]]

    def filled(self, left: FrozenTrial | None) -> Trial:
        """A new trial, or one of a dead process, with all its parameters."""
        number = len(self.study.get_trials(deepcopy=False)) if left is None else left.number
        self.study.sampler = make_sampler(self.sampler, self.seed, number)
        trial = self.study.ask() if left is None else Trial(self.study, left._trial_id)
        trial.set_user_attr("process", self.process)
        for key, distribution in self.space.searched.items():
            suggest(trial, key, distribution)
        return trial

    def owned(self, trial: FrozenTrial) -> bool:
        """Whether a living process runs the trial, this one included."""
        process = trial.user_attrs.get("process")
        return process is not None and held(self.folder_of(process))

    def waits_for_others(self) -> bool:
        """Whether other processes run trials: this one takes over if they die."""
        running = [t for t in self.counted() if t.state == TrialState.RUNNING]
        return not self.dry and any(t.user_attrs.get("process") != self.process for t in running)

    def tell(self, trial: Trial, loss: float | None, about: dict[str, Any]) -> None:
        """End a trial, unless another process took it over and has ended it.

        Args:
            trial: one that `take` returned.
            loss: the result; None if the trial failed.
            about: attributes to store with it.
        """
        with self.lock():
            if self.study.get_trials(deepcopy=False)[trial.number].state.is_finished():
                return
            for key, value in about.items():
                trial.set_user_attr(key, value)
            state = TrialState.FAIL if loss is None else TrialState.COMPLETE
            self.study.tell(trial.number, loss, state)

    def retry(self) -> None:
        """Queue the failed trials again. An ended trial cannot be changed: each gets a successor."""
        with self.lock():
            for trial in self.counted():
                if trial.state == TrialState.FAIL:
                    self.study.enqueue_trial(trial.params, {"retry_of": trial.number})


def open_study(sweep: Path, dry: bool) -> optuna.Study:
    """The study in the sweep's folder; a new one if there is none.

    Raises:
        UserError: this version of Optuna cannot read the file.
    """
    file = sweep / "study.db"
    if dry and not file.exists():
        return optuna.create_study()

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=60, check_same_thread=False)

    try:  # with `creator`, because a URL cannot hold every path
        storage = RDBStorage("sqlite:///study.db", {"creator": connect})
        study = optuna.create_study(study_name=sweep.name, storage=storage, load_if_exists=True)
    except (RuntimeError, SQLAlchemyError) as error:
        raise UserError(f"cannot use {file}: {getattr(error, 'orig', error)}") from error
    if not dry:
        return study
    copy = InMemoryStorage()
    optuna.copy_study(from_study_name=sweep.name, from_storage=storage, to_storage=copy)
    return optuna.load_study(study_name=sweep.name, storage=copy)


def make_sampler(name: str, seed: int, number: int) -> BaseSampler:
    """A sampler for one trial.

    It is seeded with (seed, trial number). So a search that is started again draws new trials, the same
    as without the interruption.
    """
    state = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return RandomSampler(state) if name == "random" else TPESampler(seed=state)


def suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    """Set a parameter of a trial, unless it is set already."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(key, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        d = distribution
        trial.suggest_int(key, d.low, d.high, step=d.step, log=d.log)
    else:
        d: Any = distribution
        trial.suggest_float(key, d.low, d.high, step=d.step, log=d.log)


def lasting(overrides: list[str]) -> list[str]:
    """The overrides that define the search; those of a single start are left out."""
    return sorted(o for o in overrides if parse([o])[0].key_or_group not in command_keys())


def differing(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The differences between two searches, as text; empty if they are the same."""
    was, now = found["space"], wanted["space"]
    changed = [
        f"{key} was {was.get(key, 'not searched')}, is {now.get(key, 'not searched')}"
        for key in {**was, **now}
        if was.get(key) != now.get(key)
    ]
    if changed:
        return "; ".join(changed)
    if found["job"] == wanted["job"]:
        return ""
    before, after = ([o for o in a["fixed"] if o not in b["fixed"]]
                     for a, b in ((found, wanted), (wanted, found)))  # fmt: skip
    if before or after:
        return f"it has {' '.join(before) or 'nothing'}, now given: {' '.join(after) or 'nothing'}"
    return "the configuration or the corpus has changed since it was started"
