"""A sweep that adds seeds: made-up trainings for the decisions, real ones for the whole way."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

import modgpt.sweep.until_sure as until_sure
from modgpt.config.compose import Job
from modgpt.errors import UserError
from modgpt.runs.record import RunRecord, write_record
from modgpt.sweep.launch import Ended
from modgpt.sweep.plan import Planned
from modgpt.sweep.until_sure import Settings, run_until_sure, settings
from tests.sweep.script import records, sweep, tiny

EFFECTS = {"swiglu": 0.0, "standard": 0.2, "moe": 0.012}
SETTINGS = Settings((3, 4, 6, 9), 0.005)


class Trainings:
    """Made-up trainings: the loss is the effect of the feed-forward and noise that the seed decides."""

    def __init__(self, folder: Path, sigma: float) -> None:
        self.folder, self.sigma, self.calls = folder, sigma, list[list[tuple[str, int]]]()
        self.fail: tuple[str, int] | None = None

    def run_sweep(self, overrides: Sequence[Sequence[str]], engine: Any, **_: Any) -> Ended:
        jobs, planned = [], []
        for job in overrides:
            given = dict(o.split("=", 1) for o in job)
            ffn, seed = given["ffn"], int(given["seed"])
            jobs.append((ffn, seed))
            rng = np.random.default_rng([sorted(EFFECTS).index(ffn), seed])
            failed = (ffn, seed) == self.fail
            record = RunRecord(
                status="failed" if failed else "finished", choices={"ffn": ffn}, seed=seed,
                overrides=list(job), final_step=10,
                final_val_loss=None if failed else 1.8 + EFFECTS[ffn] + self.sigma * rng.normal(),
            )  # fmt: skip
            folder = self.folder / "s" / f"{ffn}-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            write_record(folder, record)
            config = OmegaConf.create({"seed": seed, "model": {}, "data": {}})
            planned.append(Planned(Job(config, {}, list(job)), folder))
        self.calls.append(jobs)
        return Ended(int(self.fail is not None), planned)

    @property
    def seeds(self) -> Counter[str]:
        return Counter(ffn for call in self.calls for ffn, _ in call)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainings:
    made = Trainings(tmp_path, 0.01)
    monkeypatch.setattr(until_sure, "run_sweep", made.run_sweep)
    return made


def jobs(tmp_path: Path) -> list[list[str]]:
    return [[f"ffn={ffn}", f"sweep_dir={tmp_path}", "sweep_name=s"] for ffn in EFFECTS]


def run(tmp_path: Path, how: Settings = SETTINGS) -> int:
    return run_until_sure(jobs(tmp_path), how, lambda n: None)  # pyright: ignore[reportArgumentType]


def kept(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "s" / "until_sure.json").read_text())


def test_a_clear_option_gets_no_more_seeds(trainings: Trainings, tmp_path: Path) -> None:
    assert run(tmp_path) == 0
    assert trainings.seeds["standard"] == 3
    assert trainings.seeds["moe"] > 3
    assert kept(tmp_path)["complete"] and kept(tmp_path)["confidence"] > 0.95


def test_no_seed_is_trained_twice_and_the_baseline_has_more(
    trainings: Trainings, tmp_path: Path
) -> None:
    run(tmp_path)
    trained = [job for call in trainings.calls for job in call]
    assert len(trained) == len(set(trained))
    for ffn in EFFECTS:
        assert sorted(s for f, s in trained if f == ffn) == list(range(1, trainings.seeds[ffn] + 1))
    assert trainings.seeds["swiglu"] >= trainings.seeds["moe"]


def test_the_baseline_begins_with_more_seeds(trainings: Trainings, tmp_path: Path) -> None:
    """√2 times as many for two options: 5 in place of 3."""
    run(tmp_path)
    assert Counter(ffn for ffn, _ in trainings.calls[0]) == {"swiglu": 5, "standard": 3, "moe": 3}


def test_it_ends_at_the_last_look(trainings: Trainings, tmp_path: Path) -> None:
    trainings.sigma = 0.3
    assert run(tmp_path) == 0
    assert len(trainings.calls) == 4 and trainings.seeds["moe"] == 9
    assert kept(tmp_path)["looks"] == [3, 4, 6, 9] and kept(tmp_path)["complete"]


def test_a_job_that_goes_on_elsewhere_postpones_the_look(
    trainings: Trainings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at some of the trainings would be one look too many."""

    def unfinished(overrides: Sequence[Sequence[str]], engine: Any, **_: Any) -> Ended:
        ended = trainings.run_sweep(overrides, engine)
        folder = ended.jobs[0].folder
        record = RunRecord(status="running", choices={}, seed=1, overrides=[])
        write_record(folder, record)
        return ended

    monkeypatch.setattr(until_sure, "run_sweep", unfinished)
    run(tmp_path)
    assert len(trainings.calls) == 1 and not (tmp_path / "s" / "until_sure.json").exists()


def test_a_failed_job_is_told_and_the_others_count(trainings: Trainings, tmp_path: Path) -> None:
    trainings.fail = ("moe", 2)
    assert run(tmp_path) == 1
    assert trainings.seeds["moe"] > 3


def test_the_same_command_goes_on(trainings: Trainings, tmp_path: Path) -> None:
    """The looks come to the same decisions: the jobs are the same, finished ones are not repeated."""
    run(tmp_path)
    first = list(trainings.calls)
    trainings.calls.clear()
    run(tmp_path)
    assert trainings.calls == first


@pytest.mark.parametrize(
    "given, tune, says",
    [
        ({"looks": [3, 3]}, {}, "must rise from 2 or more"),
        ({"looks": [1, 3]}, {}, "must rise from 2 or more"),
        ({"looks": []}, {}, "must rise from 2 or more"),
        ({"looks": "many"}, {}, "must rise from 2 or more"),
        ({"same_within": 0}, {}, "must be a number above 0"),
        ({"same_within": "x"}, {}, "must be a number above 0"),
        ({"delta": 1}, {}, "not delta"),
        ({"looks": [3]}, {"optimizer.lr": "1,2"}, "choose one"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, Any], tune: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        settings(given, tune)


def test_seeds_are_not_given(trainings: Trainings, tmp_path: Path) -> None:
    given = [[*job, "seed=3"] for job in jobs(tmp_path)]
    with pytest.raises(UserError, match="chooses the seeds itself"):
        run_until_sure(given, SETTINGS, lambda n: None)  # pyright: ignore[reportArgumentType]
    assert not trainings.calls


@pytest.mark.slow
def test_a_real_sweep_adds_seeds_and_goes_on(corpus: Path, tmp_path: Path) -> None:
    arguments = [
        *tiny(corpus, tmp_path), "sweep=until_sure", "attention=flash", "ffn=swiglu,standard",
        "norm=rmsnorm", "pos=rope", "block=sequential", "hydra.sweeper.until_sure.looks=[2,3]",
        "hydra.sweeper.until_sure.same_within=0.0001", "hydra.launcher.n_jobs=1",
    ]  # fmt: skip
    code, out, err = sweep(*arguments)
    assert code == 0, err
    assert "look 2 of at most 2" in out and "cannot tell" in out
    assert len(records(tmp_path)) == 6
    code, out, err = sweep(*arguments)
    assert code == 0, err
    assert "4 were finished before" in out and "2 were finished before" in out
