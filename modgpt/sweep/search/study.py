"""The trials of a search in `study.db`: kept through kills, shared between processes."""

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
    """The trials, of which each belongs to the process that runs it for as long as that one lives.

    Whatever is taken or told is taken and told under the sweep's lock. A process shows by a lease
    that it lives; the trials of a dead one are taken up by the next, with their parameters, so that
    their jobs are the same and go on.

    Args:
        sweep: folder of the sweep.
        space: what is searched.
        job: name of the space's first job, which tells other settings by its hash.
        sampler: one of `SAMPLERS`.
        seed: of the sampler.
        dry: work on a copy in memory and write nothing.

    Raises:
        UserError: the study that is there already searches something else.
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
        """The trials that count towards their number: not those that wait or have been retried."""
        trials = self.study.get_trials(deepcopy=False)
        retried = {trial.user_attrs.get("retry_of") for trial in trials}
        return [t for t in trials if t.state != TrialState.WAITING and t.number not in retried]

    def take(self, most: int, n_trials: int) -> list[Trial]:
        """The next trials to run: those that dead processes have left, then new ones.

        Args:
            most: trials to take.
            n_trials: trials the study shall have in the end.
        """
        with self.lock():
            found = self.counted()
            left = [t for t in found if t.state == TrialState.RUNNING and not self.owned(t)][:most]
            new = max(0, min(most - len(left), n_trials - len(found)))
            return [self.filled(trial) for trial in [*left, *[None] * new]]

    def filled(self, left: FrozenTrial | None) -> Trial:
        """A trial with all its parameters: a new one, or one left over, which may lack some."""
        number = len(self.study.get_trials(deepcopy=False)) if left is None else left.number
        self.study.sampler = make_sampler(self.sampler, self.seed, number)
        trial = self.study.ask() if left is None else Trial(self.study, left._trial_id)
        trial.set_user_attr("process", self.process)
        for key, distribution in self.space.searched.items():
            suggest(trial, key, distribution)
        return trial

    def owned(self, trial: FrozenTrial) -> bool:
        """Whether a process that lives, this one perhaps, runs the trial."""
        process = trial.user_attrs.get("process")
        return process is not None and held(self.folder_of(process))

    def waits_for_others(self) -> bool:
        """Whether other processes run trials, which they may leave to this one."""
        running = [t for t in self.counted() if t.state == TrialState.RUNNING]
        return not self.dry and any(t.user_attrs.get("process") != self.process for t in running)

    def tell(self, trial: Trial, loss: float | None, about: dict[str, Any]) -> None:
        """End a trial, unless another process that took this one for dead has.

        Args:
            trial: taken.
            loss: None if it failed.
            about: what to keep beside it.
        """
        with self.lock():
            if self.study.get_trials(deepcopy=False)[trial.number].state.is_finished():
                return
            for key, value in about.items():
                trial.set_user_attr(key, value)
            state = TrialState.FAIL if loss is None else TrialState.COMPLETE
            self.study.tell(trial.number, loss, state)

    def retry(self) -> None:
        """Put the failed trials up again: what has ended cannot be changed, so each gets a successor."""
        with self.lock():
            for trial in self.counted():
                if trial.state == TrialState.FAIL:
                    self.study.enqueue_trial(trial.params, {"retry_of": trial.number})


def open_study(sweep: Path, dry: bool) -> optuna.Study:
    """The study in the sweep's folder, a new one where there is none.

    Raises:
        UserError: its file is not one of a study that this version of Optuna reads.
    """
    file = sweep / "study.db"
    if dry and not file.exists():
        return optuna.create_study()

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(file, timeout=60, check_same_thread=False)

    try:  # by `creator`, for not every path can be written in a URL
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

    Its randomness follows from the seed and the trial's number, so that a search that is begun again
    draws what it would have drawn, not what it has drawn already.
    """
    state = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return RandomSampler(state) if name == "random" else TPESampler(seed=state)


def suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    """Give a trial a parameter, unless it has it."""
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(key, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        d = distribution
        trial.suggest_int(key, d.low, d.high, step=d.step, log=d.log)
    else:
        d: Any = distribution
        trial.suggest_float(key, d.low, d.high, step=d.step, log=d.log)


def lasting(overrides: list[str]) -> list[str]:
    """The overrides that belong to the search, not to one start of it."""
    return sorted(o for o in overrides if parse([o])[0].key_or_group not in command_keys())


def differing(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """What one search has other than another one, empty where they are the same."""
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
        return f"it has {' '.join(before) or 'no'} where now is {' '.join(after) or 'nothing'}"
    return "the configuration or the corpus has changed since"
